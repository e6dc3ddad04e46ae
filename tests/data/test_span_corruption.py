"""SpanCorruptionCollator against the algorithm written row by row, and what can be told of every row."""

import numpy as np
import pytest
import torch
from datasets import Dataset

from hf_transfer.data import SpanCorruptionCollator
from hf_transfer.data.masking import repeatable
from hf_transfer.data.span_corruption import noise_mask, random_partition, raw_length, spans_of
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from tests import tiny
from tests.data.text_tokenizers import TEXTS, byte_level, sentence_piece
from tests.marks import slow

DENSITY, MEAN = 0.15, 3.0


def rows_of(texts=TEXTS, epoch: int = 0, sentinels: int = 20) -> list[dict]:
    tokens = byte_level(sentinels)(texts)["input_ids"]
    return [{"input_ids": one, VISIT_COLUMN: Visit(row, epoch, 0)} for row, one in enumerate(tokens)]


def naive(text: list[int], generator, sentinels: list[int], density=DENSITY, mean=MEAN, roll=None):
    """Inputs and targets of a text: lists, loops, and the same draws."""
    noise = max(1, min(round(len(text) * density), len(text) - 1))
    spans = max(1, round(noise / mean))
    is_noise: list[bool] = []

    def parts(total: int) -> list[int]:
        cuts = sorted(generator.choice(total - 1, spans - 1, replace=False).tolist())
        marks = [place in cuts for place in range(total - 1)]
        found = [1]
        for mark in marks:
            if mark:
                found.append(1)
            else:
                found[-1] += 1
        return found

    replaced, kept = parts(noise), parts(len(text) - noise)
    for span in range(spans):
        is_noise += [False] * kept[span] + [True] * replaced[span]
    if roll or (roll is None and spans == 1):
        offset = int(generator.integers(len(text)))
        is_noise = is_noise[len(text) - offset :] + is_noise[: len(text) - offset]
    inputs, targets, number = [], [], 0
    for place, token in enumerate(text):
        if not is_noise[place]:
            inputs.append(token)
            continue
        if place == 0 or not is_noise[place - 1]:
            inputs.append(sentinels[number])
            targets.append(sentinels[number])
            number += 1
        targets.append(token)
    return inputs, targets


def put_together(inputs: list[int], targets: list[int], sentinels: list[int]) -> list[int]:
    """The text of which these are inputs and targets."""
    spans: dict[int, list[int]] = {}
    for token in targets:
        if token in sentinels:
            spans[token] = current = []
        else:
            current.append(token)
    return [one for token in inputs for one in spans.get(token, [token])]


def test_sentinels_are_counted_from_the_top_of_the_vocabulary():
    tokenizer = byte_level()
    assert SpanCorruptionCollator(tokenizer).sentinel_ids.tolist() == list(range(399, 379, -1))
    named = SpanCorruptionCollator(tokenizer, sentinels=("<extra_id_3>", "<mask>"))
    assert named.sentinel_ids.tolist() == [396, 2]


@pytest.mark.parametrize("roll", [None, False, True])
@pytest.mark.parametrize(("density", "mean"), [(0.15, 3.0), (0.5, 2.0), (0.4, 1.0)])
def test_every_row_is_that_of_the_naive_algorithm(density, mean, roll):
    collator = SpanCorruptionCollator(byte_level(80), density, mean, roll, seed=5)
    for row in rows_of([*TEXTS, " ".join(TEXTS[:6])], sentinels=80):
        batch = collator([row])
        generator = np.random.default_rng(row[VISIT_COLUMN].seed(5))
        expected = naive(row["input_ids"], generator, collator.sentinel_ids.tolist(), density, mean, roll)
        assert batch["input_ids"][0].tolist() == [*expected[0], 1]
        assert batch["labels"][0].tolist() == [*expected[1], 1]


@pytest.mark.parametrize("length", range(1, 41))
def test_inputs_and_targets_give_back_the_text(length):
    tokenizer = byte_level()
    collator, text = SpanCorruptionCollator(tokenizer, 0.3, 2.0), list(range(3, 3 + length))
    sentinels = collator.sentinel_ids.tolist()
    for epoch in range(5):
        batch = collator([{"input_ids": [1, *text, 1], VISIT_COLUMN: Visit(0, epoch, 0)}])
        inputs, targets = batch["input_ids"][0].tolist(), batch["labels"][0].tolist()
        assert inputs.pop() == targets.pop() == 1
        assert put_together(inputs, targets, sentinels) == text
        noise = max(1, min(round(0.3 * length), length - 1))
        assert sum(token not in sentinels for token in targets) == noise
        spans = [token for token in inputs if token in sentinels]
        assert spans == [token for token in targets if token in sentinels] == sentinels[: len(spans)]


def test_a_sentinel_in_a_text_is_left_out():
    collator = SpanCorruptionCollator(byte_level(20), roll=False)
    with_one, without = ({"input_ids": tokens, VISIT_COLUMN: Visit(0, 0, 0)} for tokens in ([3, 399, 4, 5], [3, 4, 5]))
    assert collator([with_one])["input_ids"].tolist() == collator([without])["input_ids"].tolist() == [[3, 4, 399, 1]]


def test_raw_length_of_the_released_settings():
    assert raw_length(512) == (568, 114)
    collator = SpanCorruptionCollator(byte_level(30), roll=False)
    batch = collator([{"input_ids": [3] * 568}])
    assert (batch["input_ids"].shape[1], batch["labels"].shape[1]) == (512, 114)
    assert collator([{"input_ids": [3] * 569}])["input_ids"].shape[1] == 513


@pytest.mark.parametrize("inputs", [4, 17, 64, 100])
def test_raw_length_is_the_longest_that_fits(inputs):
    def read(raw):
        return len(naive([3] * raw, np.random.default_rng(0), list(range(1000, 2000)), roll=False)[0]) + 1

    raw, targets = raw_length(inputs, roll=False)
    assert read(raw) <= inputs < read(raw + 1)
    assert targets == len(naive([3] * raw, np.random.default_rng(0), [9] * 99, roll=False)[1]) + 1


@pytest.mark.parametrize("decoder_only", [False, True])
@pytest.mark.parametrize("roll", [None, False, True])
@pytest.mark.parametrize("length", [6, 11, *(slow(one) for one in (30, 120))])
def test_no_row_is_longer_than_the_length_that_the_raw_one_is_for(length, roll, decoder_only):
    collator = SpanCorruptionCollator(byte_level(80), roll=roll, decoder_only=decoder_only)

    def longest(raw):
        rows = [{"input_ids": [3] * raw, VISIT_COLUMN: Visit(row, 0, 0)} for row in range(80)]
        batch = collator(rows)
        return max(batch["input_ids"].shape[1], batch["labels"].shape[1])

    raw = collator.raw_length(length)
    assert longest(raw) <= length < longest(raw + 1)
    assert all(longest(shorter) <= length for shorter in range(1, raw, 17))


def test_partitions_are_equally_likely():
    generator = np.random.default_rng(0)
    drawn = [tuple(random_partition(5, 3, generator)) for _ in range(6000)]
    counts = {one: drawn.count(one) for one in set(drawn)}
    assert set(counts) == {(a, b, 5 - a - b) for a in range(1, 4) for b in range(1, 5 - a)}
    assert max(abs(count - 1000) for count in counts.values()) < 120


def test_a_short_text_is_masked_anywhere():
    """Without the roll the one span of a short row is always its end."""
    generator = np.random.default_rng(0)
    masks = np.stack([noise_mask(10, DENSITY, MEAN, generator) for _ in range(4000)])
    assert masks.sum(1).tolist() == [2] * 4000
    assert np.abs(masks.mean(0) - 0.2).max() < 0.03
    assert noise_mask(10, DENSITY, MEAN, generator, roll=False).tolist() == [False] * 8 + [True] * 2


def test_counts():
    assert spans_of(568, DENSITY, MEAN) == (85, 28)
    assert spans_of(1, DENSITY, MEAN) == (1, 1)
    assert spans_of(2, 0.9, 1.0) == (1, 1)
    assert spans_of(10, 0.9, 1.0) == (9, 1)  # a span needs a kept token before it


def test_a_batch_is_padded():
    rows = rows_of()[:3]
    collator = SpanCorruptionCollator(byte_level(), seed=1)
    batch, alone = collator(rows), [collator([row]) for row in rows]
    for place, one in enumerate(alone):
        inputs, labels = one["input_ids"][0], one["labels"][0]
        assert batch["input_ids"][place, : len(inputs)].tolist() == inputs.tolist()
        assert batch["attention_mask"][place].tolist() == [1] * len(inputs) + [0] * (
            batch["input_ids"].shape[1] - len(inputs)
        )
        assert batch["labels"][place, : len(labels)].tolist() == labels.tolist()
        assert (batch["labels"][place, len(labels) :] == -100).all()
    assert batch["input_ids"][batch["attention_mask"] == 0].eq(0).all()


@pytest.mark.parametrize("side", ["left", "right"])
def test_one_row_for_a_decoder(side):
    tokenizer = byte_level(21)
    tokenizer.padding_side = side
    rows = rows_of(sentinels=21)
    pairs = SpanCorruptionCollator(tokenizer, seed=2)(rows)
    batch = SpanCorruptionCollator(tokenizer, seed=2, decoder_only=True)(rows)
    assert batch["input_ids"].shape == batch["labels"].shape == batch["attention_mask"].shape
    for place in range(len(rows)):
        inputs = pairs["input_ids"][place][pairs["attention_mask"][place] == 1].tolist()
        targets = pairs["labels"][place][pairs["labels"][place] != -100].tolist()
        real = batch["attention_mask"][place] == 1
        assert batch["input_ids"][place][real].tolist() == [*inputs, *targets]
        assert batch["labels"][place][real].tolist() == [-100] * len(inputs) + targets
        assert (batch["labels"][place][~real] == -100).all()
        assert real[-1 if side == "left" else 0]


def test_another_epoch_is_drawn_anew_and_padding_is_left_out():
    collator = SpanCorruptionCollator(byte_level())
    first, second = collator(rows_of()), collator(rows_of(epoch=1))
    assert first["labels"].tolist() != second["labels"].tolist()
    row = rows_of()[0]
    tokens, length = row["input_ids"], len(row["input_ids"])
    padded = {**row, "input_ids": [*tokens, 0, 0, 0], "attention_mask": [1] * length + [0] * 3}
    assert collator([padded])["labels"].tolist() == collator([row])["labels"].tolist()


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"noise_density": 0.0}, r"`noise_density` should be in \(0, 1\), got 0.0"),
        ({"noise_density": 1.0}, r"`noise_density` should be in \(0, 1\), got 1.0"),
        ({"mean_span_length": 0.5}, "`mean_span_length` should be at least 1, got 0.5"),
        ({"sentinels": ("<extra_id_0>", "<nowhere>")}, r"`sentinels` names \['<nowhere>'\]"),
    ],
)
def test_keywords_out_of_range_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        SpanCorruptionCollator(byte_level(), **keywords)


def test_tokenizers_without_what_is_put_in_are_refused():
    with pytest.raises(ValueError, match="needs sentinels, and this tokenizer has no `<extra_id_0>`"):
        SpanCorruptionCollator(sentence_piece())
    with pytest.raises(ValueError, match="set the tokenizer's `eos_token`"):
        SpanCorruptionCollator(tiny.tokenizer())
    with pytest.raises(
        ValueError, match="sentinel <extra_id_0> has the number 399, and the model a vocabulary of 390"
    ):
        repeatable(SpanCorruptionCollator(byte_level()), 390, 0)


def test_too_few_sentinels_are_refused_before_training():
    collator = SpanCorruptionCollator(byte_level(5))
    rows = Dataset.from_dict({"input_ids": [[3] * 100, [3] * 120]})
    with pytest.raises(ValueError, match="a row of 120 tokens has 6 spans, and the tokenizer 5 sentinels"):
        collator.check_rows(rows, "training")
    collator.check_rows(rows.select([0]), "training")
    with pytest.raises(ValueError, match="5 sentinels"):
        collator([rows[1]])
    with pytest.raises(ValueError, match="has fewer than 1 tokens of text in row 0"):
        collator.check_rows(Dataset.from_dict({"input_ids": [[1], [3]]}), "training")


def test_raw_length_of_nothing_is_refused():
    with pytest.raises(ValueError, match="has at least 3 tokens, got a length of 2"):
        raw_length(2)


def test_the_loss_of_a_decoder_is_that_of_the_targets():
    """Value and gradient: the mean over the tokens of the targets, each from all before it."""
    torch.manual_seed(0)
    model = tiny_llama()
    batch = SpanCorruptionCollator(byte_level(), decoder_only=True)(rows_of()[:4])
    loss = model(**batch).loss
    logits = model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"]).logits.log_softmax(-1)
    terms = [
        -logits[row, place - 1, batch["labels"][row, place]]
        for row in range(4)
        for place in range(1, batch["labels"].shape[1])
        if batch["labels"][row, place] != -100
    ]
    expected = torch.stack(terms).mean()
    torch.testing.assert_close(loss, expected)
    weight = model.get_input_embeddings().weight
    torch.testing.assert_close(*(torch.autograd.grad(one, weight)[0] for one in (loss, expected)))


def tiny_llama():
    from transformers import LlamaForCausalLM

    config = tiny.llama().config
    config.vocab_size = 400
    return LlamaForCausalLM(config)
