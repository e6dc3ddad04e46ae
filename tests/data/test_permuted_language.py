"""PermutationCollator against the algorithm written row by row, and what XLNet may and may not see."""

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import XLNetConfig, XLNetLMHeadModel

from hf_transfer.data import PermutationCollator
from hf_transfer.data.permuted_language import permuted_ranks, predicted_tokens, visible
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from tests.data.text_tokenizers import TEXTS, byte_level, sentence_piece


def rows_of(tokenizer, texts=TEXTS, epoch: int = 0) -> list[dict]:
    tokens = tokenizer(texts)["input_ids"]
    return [{"input_ids": one, VISIT_COLUMN: Visit(row, epoch, 0)} for row, one in enumerate(tokens)]


def xlnet(vocabulary: int) -> XLNetLMHeadModel:
    torch.manual_seed(0)
    sizes = {"d_model": 16, "n_layer": 3, "n_head": 2, "d_inner": 16, "dropout": 0.0, "initializer_range": 0.5}
    return XLNetLMHeadModel(XLNetConfig(vocab_size=vocabulary, pad_token_id=0, **sizes))


def naive(tokens: list[int], special: set[int], generator, k: int = 6, longest: int = 5, part: int | None = None):
    """Predicted places in order, and which token sees which: loops, sets and the same draws."""
    text = [place for place, token in enumerate(tokens) if token not in special]
    budget = max(1, len(text) // k)
    chosen: set[int] = set()
    weights = [1 / n for n in range(1, longest + 1)]
    start, left = 0, budget
    while left > 0 and start < len(text):
        n = min(int(generator.choice(range(1, longest + 1), p=np.array(weights) / sum(weights))), left)
        first = start + int(generator.integers(n * k - n + 1))
        found = {place for place in range(first, first + n) if place < len(text)}
        chosen |= found
        left -= len(found)
        start += n * k
    rest = [place for place in range(len(text)) if place not in chosen]
    chosen |= set(generator.choice(rest, left, replace=False).tolist())
    predicted = {text[place] for place in chosen}
    part = part or (len(tokens) + 1) // 2
    ranks: list[int] = []
    for begin in range(0, len(tokens), part):
        ranks += generator.permutation(np.arange(begin, min(begin + part, len(tokens)))).tolist()
    sees = [[False] * len(tokens) for _ in tokens]
    for i in range(len(tokens)):
        for j in range(len(tokens)):
            open_i = i not in predicted and tokens[i] not in special
            open_j = j not in predicted and tokens[j] not in special
            sees[i][j] = open_j or (not open_i and ranks[i] > ranks[j]) or (i == j and i not in predicted)
    return sorted(predicted), sees


@pytest.mark.parametrize("keywords", [{}, {"context_per_token": 3, "max_span_length": 2, "permuted_length": 4}])
@pytest.mark.parametrize("make", [byte_level, sentence_piece])
def test_every_row_is_that_of_the_naive_algorithm(make, keywords):
    tokenizer = make()
    collator = PermutationCollator(tokenizer, seed=5, **keywords)
    special = {tokenizer.pad_token_id, tokenizer.eos_token_id, tokenizer.bos_token_id, tokenizer.mask_token_id}
    names = dict(zip(keywords, ("k", "longest", "part")))
    for row in rows_of(tokenizer, [*TEXTS, " ".join(TEXTS[:5])]):
        batch, tokens = collator([row]), row["input_ids"]
        generator = np.random.default_rng(row[VISIT_COLUMN].seed(5))
        places, sees = naive(tokens, special, generator, **{names[name]: value for name, value in keywords.items()})
        assert batch["input_ids"][0].tolist() == tokens
        assert batch["target_mapping"][0].argmax(1).tolist() == places
        assert batch["target_mapping"][0].sum(1).tolist() == [1] * len(places)
        assert batch["labels"][0].tolist() == [tokens[place] for place in places]
        assert batch["perm_mask"][0].bool().logical_not().tolist() == sees


@pytest.mark.parametrize("length", [2, 3, 5, 6, 7, 12, 13, 64, 512])
def test_one_in_six_is_predicted(length):
    for seed in range(20):
        chosen = predicted_tokens(length, 6, 5, np.random.default_rng(seed))
        assert chosen.shape == (length,) and chosen.sum() == max(1, length // 6)
    assert predicted_tokens(512, 6, 5, np.random.default_rng(0)).sum() == 85


def test_every_place_is_predicted_as_often():
    generator = np.random.default_rng(0)
    share = np.mean([predicted_tokens(30, 6, 5, generator) for _ in range(6000)], axis=0)
    assert share.mean() == pytest.approx(1 / 6)
    assert share.min() > 0.1 and share.max() < 0.25


def test_ranks_stay_in_their_part():
    ranks = permuted_ranks(11, 6, np.random.default_rng(0))
    assert sorted(ranks[:6]) == list(range(6)) and sorted(ranks[6:]) == list(range(6, 11))
    assert ranks.tolist() != list(range(11))


def test_who_sees_whom():
    sees = visible(np.array([2, -1, 0, 1]), np.array([True, False, True, False]))
    assert sees.astype(int).tolist() == [[0, 1, 1, 1], [0, 1, 0, 0], [0, 1, 0, 0], [0, 1, 1, 1]]


@pytest.mark.parametrize("length", [12, 13])  # an odd length is as good as an even one
def test_a_prediction_does_not_depend_on_what_comes_later_in_the_order(length):
    """Neither on the token itself: changed inputs change the logits of later predictions only."""
    model = xlnet(50).eval()
    tokenizer = sentence_piece()
    collator = PermutationCollator(tokenizer, context_per_token=2, seed=1)
    tokens = [0, *range(10, 10 + length - 2), 2]
    batch = collator([{"input_ids": tokens}])
    sees = ~batch["perm_mask"][0].bool()
    places = batch["target_mapping"][0].argmax(1).tolist()

    def logits(changed):
        inputs = {**batch, "input_ids": changed}
        inputs.pop("labels")
        with torch.no_grad():
            return model(**inputs).logits[0]

    plain, depends = logits(batch["input_ids"]), 0
    for place in range(length):
        changed = batch["input_ids"].clone()
        changed[0, place] = 49
        moved = (logits(changed) - plain).abs().amax(1) > 1e-6
        for number, target in enumerate(places):
            assert bool(moved[number]) == bool(sees[target, place]), (target, place)
            depends += bool(moved[number])
    assert 0 < depends < length * len(places)


@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_changes_nothing(side):
    tokenizer = sentence_piece()
    tokenizer.padding_side, model = side, xlnet(len(sentence_piece())).eval()
    try:
        rows = rows_of(tokenizer)[:5]
        collator = PermutationCollator(tokenizer, seed=1)
        batch = collator(rows)
        with torch.no_grad():
            together = model(**batch)
            alone = [model(**collator([row])) for row in rows]
        counts = [int((labels != -100).sum()) for labels in batch["labels"]]
        for place, one in enumerate(alone):
            torch.testing.assert_close(together.logits[place, : counts[place]], one.logits[0], atol=1e-4, rtol=1e-4)
        expected = sum(one.loss * count for one, count in zip(alone, counts)) / sum(counts)
        torch.testing.assert_close(together.loss, expected, atol=1e-4, rtol=1e-4)
        assert (batch["attention_mask"].sum(1) == torch.tensor([len(row["input_ids"]) for row in rows])).all()
    finally:
        tokenizer.padding_side = "right"


def test_value_and_gradient_of_the_loss():
    """The mean over the predicted tokens of -log p of the token itself."""
    model, tokenizer = xlnet(400), byte_level()
    batch = PermutationCollator(tokenizer)(rows_of(tokenizer)[:4])
    loss = model(**batch).loss
    inputs = {name: value for name, value in batch.items() if name != "labels"}
    logits = model(**inputs).logits.log_softmax(-1)
    terms = []
    for row in range(4):
        for number, mapping in enumerate(batch["target_mapping"][row]):
            if mapping.any():
                terms.append(-logits[row, number, batch["input_ids"][row, mapping.argmax()]])
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(*(torch.autograd.grad(one, model.transformer.mask_emb)[0] for one in (loss, expected)))


def test_another_epoch_is_drawn_anew():
    tokenizer = byte_level()
    collator = PermutationCollator(tokenizer)
    first, second = (collator(rows_of(tokenizer, epoch=epoch)) for epoch in (0, 1))
    assert not torch.equal(first["perm_mask"], second["perm_mask"])
    torch.testing.assert_close(collator(rows_of(tokenizer))["perm_mask"], first["perm_mask"])


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"context_per_token": 1}, "`context_per_token` should be at least 2, got 1"),
        ({"max_span_length": 0}, "`max_span_length` should be at least 1, got 0"),
        ({"permuted_length": 0}, "`permuted_length` should be at least 1, got 0"),
    ],
)
def test_numbers_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        PermutationCollator(byte_level(), **keywords)


def test_a_lone_token_is_refused_before_training():
    collator = PermutationCollator(sentence_piece())
    rows = Dataset.from_dict({"input_ids": [[0, 7, 8, 2], [0, 7, 2], [0, 2]]})
    with pytest.raises(ValueError, match="has fewer than 2 tokens of text in row 1, 2"):
        collator.check_rows(rows, "training")
    with pytest.raises(ValueError, match="needs rows of at least 2 tokens of text"):
        collator([rows[1]])
