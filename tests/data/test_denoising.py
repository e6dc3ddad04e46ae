"""DenoisingCollator against the algorithm written row by row, its budget, and what can be told of every row."""

import math
import re
from collections import Counter
from itertools import permutations

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import BartConfig, BartForConditionalGeneration

from hf_transfer.data import DenoisingCollator
from hf_transfer.data.denoising import permuted_sentences, span_lengths
from hf_transfer.data.masking import repeatable
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from tests import tiny
from tests.data.text_tokenizers import TEXTS, byte_level, sentence_piece

PASSAGES = [" ".join(TEXTS[start : start + 5]) for start in range(0, 20, 3)]
MAKERS = {"bytes": byte_level, "sentence pieces": sentence_piece}


def rows_of(tokenizer, texts=PASSAGES, epoch: int = 0) -> list[dict]:
    tokens = tokenizer(texts)["input_ids"]
    return [{"input_ids": one, VISIT_COLUMN: Visit(row, epoch, 0)} for row, one in enumerate(tokens)]


def naive_words(tokenizer, tokens: list[int]) -> list[list[int]]:
    """Text as a list of words, each a list of tokens."""
    words: list[list[int]] = []
    for token in tokens:
        if tokenizer.convert_ids_to_tokens(token)[0] in "Ġ▁" or not words:
            words.append([])
        words[-1].append(token)
    return words


def naive(tokenizer, words: list[list[int]], generator, share, mean, permute) -> list[list[int] | str]:
    """The words in their new order, with "mask" for a span: lists, loops and the same draws."""
    sentences: list[list[list[int]]] = [[]]
    for word in words:
        sentences[-1].append(word)
        last = tokenizer.convert_ids_to_tokens(word[-1])
        if "." in last and not any(letter.isalnum() for letter in last.replace("Ġ", "").replace("▁", "")):
            sentences.append([])
    sentences = [sentence for sentence in sentences if sentence]
    chosen = generator.permutation(len(sentences))[: math.ceil(permute * len(sentences))].tolist()
    order = list(range(len(sentences)))
    for place, other in zip(chosen, generator.permutation(len(chosen)).tolist()):
        order[place] = chosen[other]
    words = [word for place in order for word in sentences[place]]
    budget, lengths = math.ceil(share * len(words)), []
    while sum(lengths) < budget:
        lengths.append(min(int(generator.poisson(mean)), budget - sum(lengths)))
    while len(lengths) > budget:
        lengths.remove(0)
    pieces = [-1] * (len(words) - budget) + lengths
    noised, left = [], list(words)
    for piece in generator.permutation(pieces).tolist():
        if piece < 0:
            noised.append(left.pop(0))
        else:
            noised.append("mask")
            left = left[piece:]
    assert not left
    return noised


@pytest.mark.parametrize("permute", [0.0, 0.5, 1.0])
@pytest.mark.parametrize(("share", "mean"), [(0.3, 3.0), (0.15, 0.7), (1.0, 3.5)])
@pytest.mark.parametrize("kind", MAKERS)
def test_every_row_is_that_of_the_naive_algorithm(kind, share, mean, permute):
    tokenizer = MAKERS[kind]()
    start, end = ([0], [2]) if kind == "sentence pieces" else ([], [1])
    collator = DenoisingCollator(tokenizer, share, mean, permute_sentences=permute, seed=5)
    for row in rows_of(tokenizer, [*PASSAGES, *TEXTS[:4]]):
        batch = collator([row])
        text = [token for token in row["input_ids"] if token not in [*start, *end]]
        generator = np.random.default_rng(row[VISIT_COLUMN].seed(5))
        expected = naive(tokenizer, naive_words(tokenizer, text), generator, share, mean, permute)
        flat = [one for word in expected for one in ([tokenizer.mask_token_id] if word == "mask" else word)]
        assert batch["input_ids"][0].tolist() == [*start, *flat, *end]
        assert batch["labels"][0].tolist() == [*start, *text, *end]


@pytest.mark.parametrize("words", [1, 2, 7, 100])
@pytest.mark.parametrize("share", [0.01, 0.3, 1.0])
def test_the_budget_is_kept_to_the_word(words, share):
    generator = np.random.default_rng(0)
    for _ in range(50):
        lengths = span_lengths(words, share, 3.0, generator)
        assert lengths.sum() == math.ceil(share * words) >= len(lengths) and lengths[-1] > 0
        assert len(span_lengths(words, share, 0.2, generator)) <= math.ceil(share * words)
    many = np.concatenate([span_lengths(10_000, 0.3, 3.0, generator)[:-1] for _ in range(3)])
    assert many.mean() == pytest.approx(3, abs=0.2)
    assert (many == 0).mean() == pytest.approx(math.exp(-3), abs=0.02)


def test_the_original_matches_what_is_left_with_a_gap_for_every_mask():
    tokenizer = byte_level()
    collator = DenoisingCollator(tokenizer, permute_sentences=0.0)
    for epoch in range(10):
        rows = rows_of(tokenizer, epoch=epoch)
        batch = collator(rows)
        for place in range(len(rows)):
            inputs = batch["input_ids"][place][batch["attention_mask"][place] == 1].tolist()
            labels = batch["labels"][place][batch["labels"][place] != -100].tolist()
            pattern = "".join("(?:,[0-9]+)*" if one == tokenizer.mask_token_id else f",{one}" for one in inputs)
            assert re.fullmatch(pattern, "".join(f",{one}" for one in labels))
            assert labels == [*rows[place]["input_ids"], 1]


def test_sentences_keep_their_words_and_change_their_order():
    tokenizer = byte_level()
    text = "Miss Taylor married. Do cats eat bats? There was nothing in 3.14 . What"
    collator = DenoisingCollator(tokenizer, 1e-9, permute_sentences=1.0)
    tokens, seen = tokenizer(text)["input_ids"], Counter()
    for epoch in range(200):
        batch = collator([{"input_ids": tokens, VISIT_COLUMN: Visit(0, epoch, 0)}])
        inputs = batch["input_ids"][0]
        assert (inputs == tokenizer.mask_token_id).sum() >= 1
        words = "".join(tokenizer.convert_ids_to_tokens(inputs.tolist())).replace("Ġ", " ")
        seen[tuple(re.findall("Taylor|cats|What", words))] += 1
    # one word of all is masked, which is seldom one of the three
    orders = {order: count for order, count in seen.items() if len(order) == 3}
    assert set(orders) == {
        ("Taylor", "cats", "What"),
        ("Taylor", "What", "cats"),
        ("cats", "Taylor", "What"),
        ("cats", "What", "Taylor"),
        ("What", "Taylor", "cats"),
        ("What", "cats", "Taylor"),
    }
    assert min(orders.values()) > 10


def test_words_are_masked_whole_and_tokens_are_not():
    tokenizer = byte_level()
    rows = rows_of(tokenizer)

    def kept_in_part(whole_words: bool) -> int:
        batch = DenoisingCollator(tokenizer, permute_sentences=0.0, whole_words=whole_words)(rows)
        count = 0
        for place, row in enumerate(rows):
            inputs = f",{','.join(map(str, batch['input_ids'][place].tolist()))},"
            words = naive_words(tokenizer, row["input_ids"])
            every = {token for word in words for token in word}
            alone = {token for token in every if sum(token in word for word in words) == 1}
            for word in words:
                own = [token for token in word if token in alone]
                present = [f",{token}," in inputs for token in own]
                count += any(present) and not all(present)
        return count

    assert kept_in_part(True) == 0 and kept_in_part(False) > 0


def test_some_masks_are_random_tokens():
    tokenizer = byte_level()
    rows, plain = rows_of(tokenizer) * 60, DenoisingCollator(tokenizer, seed=1)
    rows = [{**row, VISIT_COLUMN: Visit(place, 0, 0)} for place, row in enumerate(rows)]
    mixed = DenoisingCollator(tokenizer, random_share=0.4, seed=1, vocabulary=250)(rows)
    masks = plain(rows)["input_ids"] == tokenizer.mask_token_id
    stands = mixed["input_ids"][masks]
    is_random = stands != tokenizer.mask_token_id
    assert is_random.float().mean().item() == pytest.approx(0.4, abs=0.04)
    assert not set(stands[is_random].tolist()) & set(tokenizer.all_special_ids)
    assert stands.max() < 250
    assert torch.equal(mixed["input_ids"][~masks], plain(rows)["input_ids"][~masks])


def test_a_token_between_texts_moves_with_the_sentence_before_it():
    """Eight words, of which 1 and 5 end with a full stop, and special tokens around and between three texts."""
    words = np.array([-1, 0, 1, -1, -1, 2, 3, 4, 5, 6, -1, 7, -1])
    ends = np.isin(words, [1, 5])
    seen = set()
    for seed in range(300):
        order = permuted_sentences(ends, words, 1.0, np.random.default_rng(seed))
        assert (order[0], order[-1]) == (0, 12)
        seen.add(tuple(order[1:-1].tolist()))
    parts = [[1, 2, 3, 4], [5, 6, 7, 8], [9, 10], [11]]
    assert seen == {tuple(place for part in order for place in part) for order in permutations(parts)}


def test_special_tokens_are_not_masked():
    tokenizer = sentence_piece()
    collator = DenoisingCollator(tokenizer, mask_share=1.0)
    batch = collator([{"input_ids": [0, 10, 11, 2, 12, 13]}])
    inputs = batch["input_ids"][0].tolist()
    assert inputs[0] == 0 and inputs[-1] == 2 and inputs.count(2) == 2
    assert set(inputs) == {0, 2, tokenizer.mask_token_id}
    assert batch["labels"][0].tolist() == [0, 10, 11, 2, 12, 13, 2]


def test_offsets_tell_words_too():
    tokenizer = byte_level()
    read = tokenizer(PASSAGES[0], return_offsets_mapping=True)
    offsets = [(start + (PASSAGES[0][start] == " "), end) for start, end in read["offset_mapping"]]
    row = {"input_ids": read["input_ids"], VISIT_COLUMN: Visit(0, 0, 0)}
    collator = DenoisingCollator(tokenizer)
    assert torch.equal(collator([{**row, "offset_mapping": offsets}])["input_ids"], collator([row])["input_ids"])
    padded = {**row, "input_ids": [*row["input_ids"], 0, 0], "offset_mapping": [*offsets, (0, 0), (0, 0)]}
    padded["attention_mask"] = [1] * len(offsets) + [0, 0]
    assert torch.equal(collator([padded])["labels"], collator([row])["labels"])


def test_a_row_does_not_depend_on_its_batch_and_is_drawn_anew_in_another_epoch():
    tokenizer = byte_level()
    collator = DenoisingCollator(tokenizer)
    rows = rows_of(tokenizer)
    together = collator(rows)
    for place, row in enumerate(rows):
        alone = collator([row])["input_ids"][0]
        assert together["input_ids"][place, : len(alone)].tolist() == alone.tolist()
        assert together["attention_mask"][place].sum() == len(alone)
    assert collator(rows_of(tokenizer, epoch=1))["input_ids"].tolist() != together["input_ids"].tolist()


def test_the_loss_is_that_of_the_original_token_by_token():
    """Value and gradient, with the decoder reading the labels shifted right by the model."""
    tokenizer = byte_level()
    torch.manual_seed(0)
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2, "decoder_start_token_id": 1, "dropout": 0.0}
    config = BartConfig(vocab_size=400, pad_token_id=0, eos_token_id=1, forced_eos_token_id=1, **sizes, **heads)
    model = BartForConditionalGeneration(config)
    batch = DenoisingCollator(tokenizer)(rows_of(tokenizer)[:3])
    loss = model(**batch).loss
    labels = batch["labels"]
    shifted = torch.cat([torch.full((3, 1), 1), labels[:, :-1].clamp(min=0)], dim=1)
    inputs = {name: batch[name] for name in ("input_ids", "attention_mask")}
    logits = model(**inputs, decoder_input_ids=shifted).logits.log_softmax(-1)
    terms = [
        -logits[row, place, label]
        for row in range(3)
        for place, label in enumerate(labels[row].tolist())
        if label != -100
    ]
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(loss, expected)
    weight = model.get_input_embeddings().weight
    torch.testing.assert_close(*(torch.autograd.grad(one, weight)[0] for one in (loss, expected)))


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"mask_share": 0.0}, r"`mask_share` should be in \(0, 1\], got 0.0"),
        ({"mean_span_length": 0.0}, "`mean_span_length` should be positive, got 0.0"),
        ({"random_share": 1.1}, r"`random_share` should be in \[0, 1\], got 1.1"),
        ({"permute_sentences": -1.0}, r"`permute_sentences` should be in \[0, 1\], got -1.0"),
    ],
)
def test_numbers_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        DenoisingCollator(byte_level(), **keywords)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="denoising needs a `mask_token`, and this tokenizer has none"):
        DenoisingCollator(tiny.tokenizer())
    tokenizer = tiny.tokenizer()
    tokenizer.add_special_tokens({"mask_token": "[MASK]"})
    with pytest.raises(ValueError, match="denoising needs a `eos_token`"):
        DenoisingCollator(tokenizer)
    with pytest.raises(ValueError, match="mask token has the number 2, and the model a vocabulary of 2"):
        repeatable(DenoisingCollator(byte_level()), 2, 0)
    collator = DenoisingCollator(sentence_piece())
    with pytest.raises(ValueError, match="has fewer than 1 tokens of text in row 1"):
        collator.check_rows(Dataset.from_dict({"input_ids": [[0, 7, 2], [0, 2]]}), "training")
