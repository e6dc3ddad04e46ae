"""The divergence between two data sets, from folders to the written tables."""

import json

import pytest

from hf_transfer.runs.divergence import run_divergence


@pytest.fixture
def quick(monkeypatch):
    monkeypatch.setattr("hf_transfer.evaluation.divergences.STEPS", 20)


def test_two_folders_of_digits_under_a_model(here, quick):
    report = run_divergence("vit", "digits", "more_digits", splits=2, max_samples=40, output_dir=here / "out")
    written = json.loads((here / "out" / "divergence.json").read_text())
    assert written["estimates"].keys() == report.estimates.keys()
    assert written["settings"]["rows"] == {"source": 40, "target": 40}
    assert written["settings"]["own_head"] is True
    assert 0 < written["estimates"]["source_error"]["value"] <= 1, "random weights are often wrong"
    table = (here / "out" / "divergence.md").read_text()
    assert "| localised disparity |" in table and "| proxy A-distance, 0 to 2 |" in table
    with pytest.raises(FileExistsError):
        run_divergence("vit", "digits", "more_digits", output_dir=here / "out")


@pytest.mark.parametrize("model", ["headless", "three"])
def test_a_model_without_a_head_for_the_classes_fits_one(here, quick, model):
    report = run_divergence(model, "digits", "more_digits", splits=1, max_samples=20)
    assert report.settings["own_head"] is False
    assert "localized_disparity" in report.estimates


def test_mistakes(here):
    with pytest.raises(ValueError, match="at least 4, got 3"):
        run_divergence("vit", "digits", "more_digits", max_samples=3)
    with pytest.raises(ValueError, match="cannot load"):
        run_divergence("nowhere", "digits", "more_digits")
