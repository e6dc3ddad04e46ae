"""What all scores of the registry share: their paper, options, diagnostics and refusals."""

import pytest
import torch

from hf_transfer.ranking import SCORES
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.reservoir import ReservoirScore

PAPERS = {
    "gbc": "2111.12780",
    "h_score": "10.1109/ICIP.2019.8803726",
    "knn": "2010.06402",
    "leep": "2002.12462",
    "linear_probe": "2010.06402",
    "logme": "2102.11005",
    "nce": "1908.08142",
    "shrunk_h_score": "2110.06893",
    "trans_rate": "2106.09362",
}
# Of 60 rows, 5 columns of which the third is zero, and the classes 0, 1 and 3.
DIAGNOSTICS = {
    "gbc": {"rows_kept": 60},
    "h_score": {"rows": 60, "dimension": 5, "classes": 3},
    "knn": {"rows_kept": 60},
    "leep": {"rows": 60, "rows_kept": 60},
    "linear_probe": {"rows_kept": 60, "ridge": ...},
    "logme": {"rows": 60, "dimension": 5, "rank": 4, "columns": 3, "is_bounded": True},
    "nce": {"rows": 60, "source_classes_used": 4},
    "shrunk_h_score": {"rows": 60, "dimension": 5, "classes": 3, "shrinkage": ...},
    "trans_rate": {"rows_kept": 60, "classes": 3},
}
OF_CLASSES = ["gbc", "h_score", "leep", "nce", "shrunk_h_score", "trans_rate"]
OF_ROWS = [name for name in SCORES if issubclass(score_class(name), ReservoirScore)]


def probabilities(rows):
    """Features that a source head could have given too; it never gives the third class."""
    logits = torch.randn(rows, 5, generator=torch.Generator().manual_seed(0))
    logits[:, 2] = -torch.inf
    return logits.softmax(dim=1)


@pytest.mark.parametrize("name", SCORES)
def test_paper_and_diagnostics(name):
    score = score_class(name)()
    score.update(probabilities(60), torch.tensor([0, 1, 3]).repeat(20))
    found = dict(score.compute().diagnostics)
    assert found.keys() == DIAGNOSTICS[name].keys()
    assert {key: ... if DIAGNOSTICS[name][key] is ... else value for key, value in found.items()} == DIAGNOSTICS[name]
    assert score.paper == PAPERS[name]
    assert score.reads == ("probabilities" if name in ("leep", "nce") else "features")


@pytest.mark.parametrize("name", SCORES)
def test_shards(name):
    assert (len(score_class(name)().shards), len(score_class(name)(shards=4).shards)) == (10, 4)


@pytest.mark.parametrize("name", OF_ROWS)
def test_the_rows_that_are_kept(name):
    assert score_class(name)().max_rows == 5000
    score = score_class(name)(max_rows=20, shards=4)
    score.update(probabilities(200), torch.arange(200) % 2)
    assert score.compute().diagnostics["rows_kept"] == 20


@pytest.mark.parametrize("name", SCORES)
def test_wrong_batches_are_refused(name):
    features, score = probabilities(6), score_class(name)()
    with pytest.raises(ValueError, match="should be"):
        score.update(features, torch.zeros(5, dtype=torch.long))
    with pytest.raises(ValueError, match="0 or more"):
        score.update(features, torch.tensor([0, 1, 2, 0, 1, -100]))
    with pytest.raises(ValueError, match="not finite"):
        score.update(features / 0, torch.zeros(6, dtype=torch.long))


@pytest.mark.parametrize("name", OF_CLASSES)
@pytest.mark.parametrize("labels", [torch.rand(6), torch.ones(6, 2, dtype=torch.long)], ids=["values", "several"])
def test_what_is_no_class_is_refused(name, labels):
    with pytest.raises(ValueError, match="compares classes"):
        score_class(name)().update(probabilities(6), labels)


@pytest.mark.parametrize("name", SCORES)
def test_classes_of_any_whole_type(name):
    values = []
    for dtype in (torch.int64, torch.int32, torch.uint8):
        score = score_class(name)()
        score.update(probabilities(60), torch.tensor([0, 1, 3], dtype=dtype).repeat(20))
        values.append(score.compute().value)
    assert values == values[:1] * 3


@pytest.mark.parametrize("name", sorted(set(SCORES) - set(OF_CLASSES)))
def test_several_labels_a_row_are_values(name):
    whole, real = score_class(name)(), score_class(name)()
    several = torch.tensor([[0, 0], [1, 0], [1, 1]]).repeat(20, 1)
    whole.update(probabilities(60), several)
    real.update(probabilities(60), several.double())
    assert whole.compute() == real.compute()
