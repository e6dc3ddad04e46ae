import math

import pytest
import torch

import hf_transfer.validators.snd as module
from hf_transfer.validators.snd import snd


@pytest.mark.parametrize("chunk", [1024, 5])
def test_value_against_the_formula_on_target_rows_only(evaluation_set, monkeypatch, chunk):
    features, logits, domain, labels = evaluation_set
    monkeypatch.setattr(module, "CHUNK", chunk)
    p = logits[24:].double().softmax(1)
    units = [row / row.norm() for row in p]
    total = 0.0
    for i, row in enumerate(units):
        q = torch.stack([row @ other / 0.1 for j, other in enumerate(units) if j != i]).softmax(0)
        total -= sum(x * math.log(x) for x in q.tolist()) / len(units)
    assert snd(features, logits, domain, labels, temperature=0.1) == pytest.approx(total)
    assert snd(features, logits, domain) == snd(features, logits, domain, temperature=0.05)


def test_clusters_are_denser_than_scattered_predictions():
    clusters = 20 * torch.eye(4).repeat_interleave(10, dim=0)
    scattered = torch.randn(40, 4, generator=torch.Generator().manual_seed(0))
    features, domain = torch.zeros(40, 1), torch.ones(40)
    assert snd(features, clusters, domain) == pytest.approx(math.log(9), abs=1e-4)
    assert snd(features, clusters[:, :1].repeat(1, 4), domain) == pytest.approx(math.log(39))
    assert snd(features[:8], scattered[:8], domain[:8]) < math.log(7)


def test_bad_input_raises(evaluation_set):
    features, logits, domain, _ = evaluation_set
    with pytest.raises(ValueError, match="`temperature`"):
        snd(features, logits, domain, temperature=0)
    assert snd(features[:2], logits[:2], None) == 0, "each has one neighbour"
    with pytest.raises(ValueError, match="only one"):
        snd(features[:1], logits[:1], None)
