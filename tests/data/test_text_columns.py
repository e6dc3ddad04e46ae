import pytest
from datasets import Dataset

from hf_transfer.data.prepare import prepare
from hf_transfer.data.text_columns import find_text_columns
from hf_transfer.modeling.inputs import choose_columns
from tests import tiny

TEXTS = [f"{'a' * (place % 7)} noise {place % 11} {place}" for place in range(60)]
LABELS = [place % 3 for place in range(60)]
WORDS = ["bad", "good", "so so"]


def rows(**columns):
    return Dataset.from_dict({"text": TEXTS, **columns, "label": LABELS})


LEAKS = {
    "a label in words": [WORDS[label] for label in LABELS],
    "with a mistake": [WORDS[0 if place == 4 else label] for place, label in enumerate(LABELS)],
    "finer than the label": [
        f"{WORDS[label]}, {'very' if place < 30 else 'rather'}" for place, label in enumerate(LABELS)
    ],
    "an id": [f"id-{place}" for place in range(60)],
    "a date": [f"2024-01-{place % 28 + 1:02}" for place in range(60)],
    "a copy": TEXTS,
}


@pytest.mark.parametrize("leak", LEAKS)
@pytest.mark.parametrize("way", ["prepare", "divergence", "rank"])
def test_a_pair_that_may_give_the_label_away_is_not_guessed(leak, way):
    data, model = rows(other=LEAKS[leak]), tiny.bert()
    with pytest.raises(ValueError, match=r"would be read as a pair, and `\w+` .*: name the one or two columns"):
        if way == "rank":
            choose_columns(data, model)
        else:
            prepare(data, model.config, tiny.tokenizer(), keep_labels=way == "prepare")
    if way == "rank":
        assert choose_columns(data, model, input_columns="text").inputs == ("text",)
    else:
        assert len(prepare(data, model.config, tiny.tokenizer(), text_columns=["text"])) == 60


def test_two_texts_are_a_pair(caplog):
    hypotheses = [f"claim {place % 13} of {place}" for place in range(60)]
    premises = [f"premise {place // 3} says" for place in range(60)]
    data = Dataset.from_dict({"premise": premises, "hypothesis": hypotheses, "label": LABELS})
    assert find_text_columns(data) == ["premise", "hypothesis"]
    assert choose_columns(data, tiny.bert()).inputs == ("premise", "hypothesis")


def test_one_text_is_read_whatever_it_is():
    assert find_text_columns(Dataset.from_dict({"text": ["a", "b"] * 5, "label": [0, 1] * 5})) == ["text"]


@pytest.mark.parametrize("way", ["prepare", "rank"])
def test_an_empty_text_is_named(way):
    data = Dataset.from_dict({"text": ["None", "NA", None, "null", None], "label": [0, 1, 0, 1, 0]})
    with pytest.raises(
        ValueError, match="column `text` of the given dataset is empty in row 2, 4 .the first row is 0"
    ):
        choose_columns(data, tiny.bert()) if way == "rank" else prepare(data, tiny.bert().config, tiny.tokenizer())
    words = data.select([0, 1, 3])
    assert choose_columns(words, tiny.bert()).inputs == ("text",)
    assert len(prepare(words, tiny.bert().config, tiny.tokenizer())) == 3
