"""mAP and ranks of retrieval against the definition, row by row."""

import pytest
import torch
from sklearn.metrics import average_precision_score

from hf_transfer.evaluation import retrieval
from hf_transfer.evaluation.retrieval import retrieval_metrics


def naive(features, labels):
    precisions, firsts = [], []
    for q in range(len(labels)):
        others = [row for row in range(len(labels)) if row != q]
        relevant = [int(labels[row] == labels[q]) for row in others]
        if not any(relevant):
            continue
        cosines = [float(torch.cosine_similarity(features[q], features[row], dim=0)) for row in others]
        precisions.append(average_precision_score(relevant, cosines))
        order = sorted(range(len(others)), key=lambda place: -cosines[place])
        firsts.append([relevant[place] for place in order].index(1))
    ranks = {f"rank_{k}": sum(first < k for first in firsts) / len(firsts) for k in (1, 5, 10)}
    return {"map": sum(precisions) / len(precisions), **ranks, "queries": len(firsts)}


def test_figures_against_the_definition(monkeypatch):
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 6, generator=generator, dtype=torch.float64)
    labels = torch.randint(6, (40,), generator=generator)
    labels[7] = 9  # the only one of its class
    monkeypatch.setattr(retrieval, "QUERIES_AT_ONCE", 11)
    assert retrieval_metrics(features, labels) == pytest.approx(naive(features, labels))
    assert retrieval_metrics(features, labels)["queries"] == 39


def test_classes_apart_are_found_whole():
    features = torch.eye(3).repeat_interleave(4, dim=0) * torch.arange(1.0, 13.0).unsqueeze(1)  # lengths do not count
    found = retrieval_metrics(features, torch.arange(3).repeat_interleave(4))
    assert found == {"map": 1.0, "rank_1": 1.0, "rank_5": 1.0, "rank_10": 1.0, "queries": 12}


def test_what_cannot_be_asked_is_said():
    with pytest.raises(ValueError, match="no class has two rows"):
        retrieval_metrics(torch.randn(3, 2), torch.arange(3))
    with pytest.raises(ValueError, match=r"`features` should be \[3, width\]"):
        retrieval_metrics(torch.randn(2, 2), torch.arange(3))
