"""Which validator scores what."""

import pytest
import torch

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.validators import VALIDATORS, WORKING, choose_validator, find_validator


def test_every_validator_scores_what_it_is_said_to(evaluation_set, monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain, labels = evaluation_set
    assert set(VALIDATORS) == {name for names in WORKING.values() for name in names}
    for name in WORKING[SINGLE_LABEL]:
        assert isinstance(find_validator(name)(features, logits, domain, labels), float)
    for name in WORKING[REGRESSION]:
        assert isinstance(find_validator(name)(features, logits, domain, torch.randn(40, 3)), float)


@pytest.mark.parametrize("name", VALIDATORS)
def test_outputs_in_low_precision_are_scored_in_full(evaluation_set, monkeypatch, name):
    """The outputs also carry a graph, as those of a model do."""
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain, labels = evaluation_set
    low = [values.bfloat16() for values in (features, logits)]
    full = [values.float() if name in ("mdd", "dd") else values.double() for values in low]
    labels = logits.double() if name == "dd" else labels
    score = find_validator(name)(*[values.requires_grad_() for values in low], domain, labels)
    assert score == pytest.approx(find_validator(name)(*full, domain, labels), abs=1e-9)


@pytest.mark.parametrize("name", ["dd", "dev", "mdd"])
def test_the_seed_of_the_halves_is_0_where_none_is_given(evaluation_set, monkeypatch, name):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain, labels = evaluation_set
    labels = logits + features[:, :1] if name == "dd" else labels
    default, first, second = (
        find_validator(name)(features, logits, domain, labels, **seed) for seed in ({}, {"seed": 0}, {"seed": 1})
    )
    assert default == first != second


def test_the_usual_one_and_the_one_that_is_asked_for():
    assert choose_validator(None, SINGLE_LABEL) == "information_maximization"
    assert choose_validator(None, REGRESSION) == "dev" and choose_validator("dd", REGRESSION) == "dd"
    assert choose_validator(None, MULTI_LABEL) == "dev"


@pytest.mark.parametrize(
    "name, predicts, message",
    [
        ("entropy", REGRESSION, "`entropy` is not defined for regression, .*accepted: dev, dd, source_risk"),
        (
            "dd",
            SINGLE_LABEL,
            "`dd` is not defined for single_label.*accepted: information_maximization, dev, ",
        ),
        (
            "mdd",
            MULTI_LABEL,
            "`mdd` is not defined for multi_label.*which this model does; accepted: dev, source_risk",
        ),
        ("luck", REGRESSION, "unknown validator `luck`"),
    ],
)
def test_one_that_does_not_work(name, predicts, message):
    with pytest.raises(ValueError, match=message):
        choose_validator(name, predicts)
