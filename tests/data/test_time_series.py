import sys

import numpy as np
import pytest
from datasets import Dataset

from hf_transfer.data.bundled import load
from hf_transfer.data.time_series import SERIES, bundled_series, series_shape


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


def test_the_two_vowels_are_the_halves_of_an_utterance():
    pytest.importorskip("aeon.datasets")
    whole, first, second = load("japanese_vowels"), load("vowel_a"), load("vowel_e")
    for place in (0, 100, 269):
        halves = first[place]["past_values"], second[place]["past_values"]
        assert halves[0] + halves[1] == whole[place]["past_values"]
        assert 0 <= len(halves[1]) - len(halves[0]) <= 1
        assert first[place]["label"] == whole[place]["label"]
    assert len(load("vowel_e", "test")) == 370
