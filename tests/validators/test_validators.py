"""Which validator scores what."""

import pytest
import torch

from hf_transfer.validators import VALIDATORS, WORKING, choose_validator, find_validator


def test_every_validator_scores_what_it_is_said_to(evaluation_set, monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain, labels = evaluation_set
    assert set(VALIDATORS) == {name for names in WORKING.values() for name in names}
    for name in WORKING["classes"]:
        assert isinstance(find_validator(name)(features, logits, domain, labels), float)
    for name in WORKING["numbers"]:
        assert isinstance(find_validator(name)(features, logits, domain, torch.randn(40, 3)), float)


def test_the_usual_one_and_the_one_that_is_asked_for():
    assert choose_validator(None, "classes") == "information_maximization"
    assert choose_validator(None, "numbers") == "dev" and choose_validator("dd", "numbers") == "dd"
    assert choose_validator(None, "several labels") is None


@pytest.mark.parametrize(
    "name, predicts, message",
    [
        ("entropy", "numbers", "`entropy` does not work for numbers, .*accepted: dev, dd, source_risk"),
        ("dd", "classes", "`dd` does not work for classes, .*accepted: information_maximization, dev, "),
        ("dev", "several labels", "`dev` does not work for several labels, .*none does"),
        ("luck", "numbers", "unknown validator `luck`"),
    ],
)
def test_one_that_does_not_work(name, predicts, message):
    with pytest.raises(ValueError, match=message):
        choose_validator(name, predicts)
