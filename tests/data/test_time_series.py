import re
import sys

import numpy as np
import pytest
from datasets import Dataset

from hf_transfer.data.bundled import load
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.time_series import SERIES, bundled_series, series_shape
from hf_transfer.tasks import TASKS
from hf_transfer.tasks.arguments import DataArguments


@pytest.mark.parametrize("name, shape, sizes, classes", [("japanese_vowels", (12, 29), (270, 370), 9)])
def test_the_archive_standardised_by_its_training_split(name, shape, sizes, classes):
    loaders = pytest.importorskip("aeon.datasets")
    train, test = load(name), load(name, "test")
    assert (len(train), len(test)) == sizes and train.features["label"].num_classes == classes
    assert series_shape(test) == shape
    raw = {split: loaders.load_classification(SERIES[name], split=split) for split in ("train", "test")}
    steps = np.concatenate([one.T for one in raw["train"][0]])
    expected = (raw["test"][0][7].T - steps.mean(0)) / steps.std(0)
    assert np.allclose(test[7]["past_values"], expected, atol=1e-5)
    assert test.features["label"].int2str(test[7]["label"]) == str(raw["test"][1][7])


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "aeon.datasets", None)
    with pytest.raises(ValueError, match=r'needs the package `aeon`: pip install "hf-transferability\[data\]"'):
        bundled_series.__wrapped__("GunPoint")


def test_series_that_do_not_fit_together():
    with pytest.raises(ValueError, match=r"one number of channels, got \[1, 2\]"):
        series_shape(Dataset.from_dict({"past_values": [[[1.0]], [[1.0, 2.0]]]}))
    with pytest.raises(ValueError, match="without any step"):
        series_shape(Dataset.from_dict({"past_values": [[[1.0]], []]}))


@pytest.mark.parametrize("step", [[3.0, float("nan")], [float("inf"), 3.0], [None, 3.0], ["a", "b"]])
def test_steps_that_are_no_numbers_are_named(step):
    good = ["a", "b"] if step == ["a", "b"] else [1.0, 2.0]
    bad = 0 if good == step else 1
    rows = Dataset.from_dict({"past_values": [[good, step]]})
    with pytest.raises(ValueError, match=rf"row 0 of column `past_values` holds {re.escape(str(step))} at step {bad}"):
        series_shape(rows)


def test_what_is_no_series_is_named():
    for cell in ("[[1, 2]]", None):
        rows = Dataset.from_dict({"past_values": [cell, cell]})
        with pytest.raises(ValueError, match=f"row 0 of column `past_values` holds '{re.escape(str(cell))}', and a"):
            series_shape(rows)


def test_a_list_of_numbers_is_a_series_of_one_channel():
    rows = Dataset.from_dict({"past_values": [[1.0, 2.0, 3.0], [4.0]], "label": ["a", "b"]})
    arguments = DataArguments("rows.json")
    for name in ("time-series-classification", "time-series-forecasting", "masked-time-series-modeling"):
        made = TASKS[name].arranged(rows, arguments, "training")
        assert series_shape(made) == (1, 3) and made["past_values"][1] == [[4.0]] and made["label"][:] == ["a", "b"]
    batch = PaddingCollator("past_values")([{"past_values": one} for one in made["past_values"]])
    assert batch["past_values"].tolist() == [[[1.0], [2.0], [3.0]], [[4.0], [0.0], [0.0]]]


def test_the_two_vowels_are_the_halves_of_an_utterance():
    pytest.importorskip("aeon.datasets")
    whole, first, second = load("japanese_vowels"), load("vowel_a"), load("vowel_e")
    for place in (0, 100, 269):
        halves = first[place]["past_values"], second[place]["past_values"]
        assert halves[0] + halves[1] == whole[place]["past_values"]
        assert 0 <= len(halves[1]) - len(halves[0]) <= 1
        assert first[place]["label"] == whole[place]["label"]
    assert len(load("vowel_e", "test")) == 370
