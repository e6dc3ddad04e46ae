"""MaskedLanguageCollator: shares, whole words, and draws that follow seed, epoch and row."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from tokenizers import Tokenizer, models
from transformers import PreTrainedTokenizerFast

from hf_transfer.data import MaskedLanguageCollator
from hf_transfer.data.masking import repeatable
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from hf_transfer.data.word_starts import words_of
from tests import tiny
from tests.data.text_tokenizers import KINDS, TEXTS, byte_level, word_piece


def rows_of(tokenizer, texts=TEXTS, epoch: int = 0) -> list[dict]:
    return [
        {"input_ids": tokens, "attention_mask": [1] * len(tokens), VISIT_COLUMN: Visit(row, epoch, 0)}
        for row, tokens in enumerate(tokenizer(texts)["input_ids"])
    ]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("whole_words", [False, True])
def test_inputs_and_labels_give_back_the_text(kind, whole_words):
    tokenizer = KINDS[kind]()
    rows = rows_of(tokenizer)
    batch = MaskedLanguageCollator(tokenizer, probability=0.3, whole_words=whole_words)(rows)
    for place, row in enumerate(rows):
        real = batch["attention_mask"][place].bool()
        inputs, labels = batch["input_ids"][place][real], batch["labels"][place][real]
        hidden = labels != -100
        tokens = torch.tensor(row["input_ids"])
        special = torch.isin(tokens, torch.tensor(tokenizer.all_special_ids))
        assert torch.equal(torch.where(hidden, labels, inputs), tokens)
        assert hidden.any() and not hidden[special].any()
        assert (batch["labels"][place][~real] == -100).all()
        if whole_words:
            words = words_of(tokenizer, tokens.numpy(), special.numpy())
            assert all(len(set(hidden[torch.from_numpy(words == number)].tolist())) == 1 for number in set(words))


@pytest.mark.parametrize("probability", [0.15, 0.3])
def test_shares(probability):
    tokenizer = byte_level()
    tokens = [token for text in tokenizer(TEXTS)["input_ids"] for token in text]
    rows = [{"input_ids": tokens, VISIT_COLUMN: Visit(row, 0, 0)} for row in range(60)]
    batch = MaskedLanguageCollator(tokenizer, probability=probability)(rows)
    hidden = batch["labels"] != -100
    assert hidden.float().mean().item() == pytest.approx(probability, abs=0.01)
    inputs, labels = batch["input_ids"][hidden], batch["labels"][hidden]
    is_mask = inputs == tokenizer.mask_token_id
    assert is_mask.float().mean().item() == pytest.approx(0.8, abs=0.02)
    assert (inputs == labels).float().mean().item() == pytest.approx(0.1, abs=0.02)
    assert (~is_mask & (inputs != labels)).float().mean().item() == pytest.approx(0.1, abs=0.02)


def test_whole_words_are_hidden_as_often_as_told():
    tokenizer = byte_level()
    text = tokenizer(" ".join(TEXTS))["input_ids"]
    words = words_of(tokenizer, np.array(text), np.zeros(len(text), dtype=bool))
    rows = [{"input_ids": text, VISIT_COLUMN: Visit(row, 0, 0)} for row in range(60)]
    hidden = MaskedLanguageCollator(tokenizer, probability=0.3, whole_words=True)(rows)["labels"] != -100
    first = torch.from_numpy(np.flatnonzero(np.diff(words, prepend=-1)))
    assert hidden[:, first].float().mean().item() == pytest.approx(0.3, abs=0.02)


def test_a_row_is_drawn_by_seed_epoch_and_row_alone():
    tokenizer = word_piece()
    collator = MaskedLanguageCollator(tokenizer, probability=0.5, seed=3)
    rows = rows_of(tokenizer)
    together, alone = collator(rows), [collator([row]) for row in rows]
    torch.manual_seed(9)
    for place, one in enumerate(alone):
        length = one["labels"].shape[1]
        assert torch.equal(together["labels"][place, :length], one["labels"][0])
        assert torch.equal(together["input_ids"][place, :length], one["input_ids"][0])
    assert not torch.equal(collator(rows_of(tokenizer, epoch=1))["labels"], together["labels"])
    other = MaskedLanguageCollator(tokenizer, probability=0.5, seed=4)
    assert not torch.equal(other(rows)["labels"], together["labels"])


def test_the_trainer_gives_seed_and_vocabulary():
    tokenizer = byte_level()
    bound = repeatable(MaskedLanguageCollator(tokenizer), 1000, 7)
    assert (bound.seed, bound.vocabulary) == (7, 1000)
    assert repeatable(MaskedLanguageCollator(tokenizer, seed=1), None, 7).seed == 1
    with pytest.raises(ValueError, match="mask token has the number 2, and the model a vocabulary of 2"):
        repeatable(MaskedLanguageCollator(tokenizer), 2, 0)


def test_random_tokens_are_those_of_the_model():
    tokenizer = byte_level()
    collator = MaskedLanguageCollator(tokenizer, probability=1.0, mask_share=0.0, random_share=1.0, vocabulary=20)
    text = tokenizer(" ".join(TEXTS))["input_ids"]
    batch = collator([{"input_ids": text}])
    changed = batch["input_ids"] != batch["labels"]
    assert changed.float().mean() > 0.9 and batch["input_ids"][changed].max() < 20


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"probability": 0.0}, r"`probability` should be in \(0, 1\], got 0.0"),
        ({"probability": 1.5}, r"`probability` should be in \(0, 1\], got 1.5"),
        ({"mask_share": -0.1}, r"`mask_share` should be in \[0, 1\]"),
        ({"mask_share": 0.8, "random_share": 0.3}, "should add up to at most 1, got 0.8 and 0.3"),
    ],
)
def test_numbers_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        MaskedLanguageCollator(byte_level(), **keywords)


def test_a_tokenizer_without_mask_or_padding_is_refused():
    with pytest.raises(ValueError, match="needs a mask token, and this tokenizer has none"):
        MaskedLanguageCollator(tiny.tokenizer())
    tokenizer = tiny.tokenizer()
    tokenizer.pad_token = None
    with pytest.raises(ValueError, match="set the tokenizer's `pad_token`"):
        MaskedLanguageCollator(tokenizer)


def test_texts_without_tokens_are_refused():
    tokenizer = word_piece()
    collator = MaskedLanguageCollator(tokenizer)
    empty = Dataset.from_dict({"input_ids": tokenizer(["Emma", "", "Alice", " "])["input_ids"]})
    message = "column `input_ids` of the training dataset has fewer than 1 tokens of text in row 1, 3"
    with pytest.raises(ValueError, match=message):
        collator.check_rows(empty, "training")
    collator.check_rows(empty.select([0, 2]), "training")
    with pytest.raises(ValueError, match="needs rows of at least 1 tokens of text"):
        collator([empty[1]])


def test_words_that_nothing_marks_are_refused_before_training():
    letters = {letter: place for place, letter in enumerate(["[PAD]", "[MASK]", *"abc"])}
    backend = Tokenizer(models.BPE(letters, []))
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", mask_token="[MASK]")
    collator, rows = MaskedLanguageCollator(tokenizer, whole_words=True), Dataset.from_dict({"input_ids": [[2, 3]]})
    with pytest.raises(ValueError, match="marks no words"):
        collator.check_rows(rows, "training")
    offsets = [[[0, 1], [1, 2]]]
    with_offsets = rows.add_column("offset_mapping", offsets)
    collator.check_rows(with_offsets, "training")
    assert (collator([with_offsets[0]])["labels"] != -100).all()
