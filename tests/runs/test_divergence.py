"""The divergence between two data sets, from folders to the written tables."""

import json
from pathlib import Path

import pytest
from datasets import ClassLabel, Dataset
from transformers import PreTrainedConfig

from hf_transfer.runs.divergence import numbered_as_head, run_divergence
from tests import tiny
from tests.runs.folders import digits, save_image_model


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 20)


def test_two_folders_of_digits_under_a_model(here, quick):
    report = run_divergence("vit", "digits", "more_digits", splits=2, max_samples=40, output_dir=here / "out")
    written = json.loads((here / "out" / "divergence.json").read_text())
    assert written["estimates"].keys() == report.estimates.keys()
    assert written["settings"]["rows"] == {"source": 40, "target": 40}
    assert written["settings"]["own_head"] is True
    assert 0 < written["estimates"]["source_error"]["value"] <= 1, "random weights are often wrong"
    table = (here / "out" / "divergence.md").read_text()
    assert "\nh is the model.\n" in table
    assert "| localised disparity |" in table and "| proxy A-distance, 0 to 2 |" in table
    with pytest.raises(FileExistsError):
        run_divergence("vit", "digits", "more_digits", output_dir=here / "out")


@pytest.mark.parametrize("model", ["headless", "three"])
def test_a_model_without_a_head_for_the_classes_fits_one(here, quick, model):
    report = run_divergence(model, "digits", "more_digits", splits=1, max_samples=20)
    assert report.settings["own_head"] is False
    assert "localized_disparity" in report.estimates


def test_labels_that_are_numbers(here, quick):
    """There are no classes to disagree on: the distances of the features alone."""
    save_image_model(here / "angles", tiny.vit(1, problem_type="regression"))
    halves = [label / 9 for label in digits()["label"][:40]]
    digits().select(range(40)).remove_columns("label").add_column("label", halves).save_to_disk("numbers")
    report = run_divergence("angles", "numbers", "more_digits", splits=1)
    assert report.estimates.keys() == {"a_distance", "hdh"}
    assert "There is no h:" in report.to_markdown()


def test_classes_are_numbered_as_in_the_head():
    names = ["bat", "ant", "cat"]
    rows = Dataset.from_dict({"image": [7, 8, 9], "label": [0, 1, 1]}).cast_column(
        "label", ClassLabel(names=["ant", "bat"])
    )
    data = {"source": rows, "target": Dataset.from_dict({"image": [1]})}

    def head(*names):
        return PreTrainedConfig(id2label=dict(enumerate(names)), label2id={name: i for i, name in enumerate(names)})

    numbered, knows = numbered_as_head(data, head(*names))
    assert knows and numbered["source"]["label"][:] == [1, 0, 0]
    assert numbered_as_head(data, head("ant", "cow"))[1] is False, "as many classes, but others"
    assert numbered_as_head(data, head("LABEL_0", "LABEL_1")) == (data, True)
    assert numbered_as_head(data, head("LABEL_0", "LABEL_1", "LABEL_2"))[1] is False
    plain = {"source": Dataset.from_dict({"label": [0, 2]})}
    assert numbered_as_head(plain, head(*names))[1] is True and numbered_as_head(plain, head("a", "b"))[1] is False


@pytest.mark.parametrize(
    "changes, message",
    [
        ({"slack": 0}, "`slack` should be positive, got 0"),
        ({"splits": 0}, "`splits` should be positive, got 0"),
        ({"target": "few"}, "at least 4 rows, got 80 of the source and 3 of the target"),
        ({"source": "fewer_classes"}, "the target dataset has 10 classes.*none of the 2 .*: 2, 3"),
        ({"task": "fill-mask"}, "`task` should be one of .*'image-classification'"),
        ({"model": "no_model"}, "cannot load `no_model`"),
    ],
)
def test_mistakes_are_told_before_a_row_goes_through_the_model(here, monkeypatch, changes, message):
    monkeypatch.setattr("hf_transfer.runs.divergence.domain_rows", lambda *args, **kwargs: pytest.fail("work began"))
    digits().select(range(3)).save_to_disk("few")
    Path("no_model").mkdir()
    rows = digits().filter(lambda row: row["label"] < 2)
    rows.cast_column("label", ClassLabel(names=["0", "1"])).save_to_disk("fewer_classes")
    with pytest.raises(ValueError, match=message):
        run_divergence(**{"model": "vit", "source": "digits", "target": "more_digits", **changes})


def test_mistakes(here):
    with pytest.raises(ValueError, match="at least 4, got 3"):
        run_divergence("vit", "digits", "more_digits", max_samples=3)
    with pytest.raises(ValueError, match="cannot load"):
        run_divergence("nowhere", "digits", "more_digits")


def test_labels_that_are_no_classes_have_no_head(here):
    """A head of three classes says nothing of three labels that may hold at once."""
    three = {"source": Dataset.from_dict({"labels": [[0, 1, 1], [1, 0, 0]]})}
    config = tiny.bert(3).config
    assert numbered_as_head(three, config) == (three, False)
    classes = {"source": Dataset.from_dict({"labels": [0, 2]})}
    assert numbered_as_head(classes, config) == (classes, True)


def test_a_pair_is_read_in_one_order_of_both(here, quick):
    """Columns that are turned round in the target are no other domain."""
    texts, books = zip(*tiny.SENTENCES)
    pairs = Dataset.from_dict(
        {
            "premise": [f"{text} {place}" for place, text in enumerate(texts)],
            "claim": [f"{place} {text}" for place, text in enumerate(texts)],
            "label": [book % 2 for book in books],
        }
    )
    pairs.to_csv("pairs.csv", index=False)
    pairs.select_columns(["claim", "label", "premise"]).to_csv("turned.csv", index=False)
    pairs.remove_columns("premise").to_csv("one.csv", index=False)
    options = {"output_dir": None, "splits": 1}
    same, turned = (run_divergence("bert", "pairs.csv", name, **options) for name in ("pairs.csv", "turned.csv"))
    assert [one.value for one in turned.estimates.values()] == pytest.approx(
        [one.value for one in same.estimates.values()]
    )
    with pytest.raises(ValueError, match="the target rows have no text column `premise`"):
        run_divergence("bert", "pairs.csv", "one.csv", output_dir=None, splits=1)
