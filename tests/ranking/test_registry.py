import pytest

from hf_transfer.ranking import SCORES, LogME, TransferabilityScore
from hf_transfer.ranking.registry import score_class


def test_every_name_leads_to_a_score_with_a_paper():
    for name in SCORES:
        kind = score_class(name)
        assert issubclass(kind, TransferabilityScore) and kind.paper
    assert score_class("logme") is LogME


def test_unknown_names_are_refused():
    with pytest.raises(ValueError, match="`score` should be one of"):
        score_class("logMe")
