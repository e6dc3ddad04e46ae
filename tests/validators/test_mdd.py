import math

import pytest
import torch

import hf_transfer.validators.mdd as module
from hf_transfer.validators.mdd import held_out_disparity, mdd

pytestmark = pytest.mark.usefixtures("fitted")


def clouds(shift, count=80, seed=0):
    """Source and target clouds in the plane, the target shifted along the second axis; f is the sign of the first."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * count, 2, generator=generator)
    domain = torch.arange(2).repeat_interleave(count)
    features[domain == 1, 1] += shift
    logits = torch.stack([-features[:, 0], features[:, 0]], dim=1)
    return features, logits, domain


def test_like_domains_have_no_disparity_and_distant_ones_much():
    near, far = held_out_disparity(*clouds(0.0)), held_out_disparity(*clouds(6.0))
    assert abs(near) < 0.15
    assert far > 0.4, "the adversary can flip nearly all of a distant target"


def test_the_score_is_minus_source_error_minus_disparity(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain = clouds(3.0)
    labels = (features[:, 0] > 0).long()
    labels[:16] = 1 - labels[:16]
    labels[domain == 1] = -100
    expected = -(16 / 80 + held_out_disparity(features, logits, domain))
    assert mdd(features, logits, domain, labels) == pytest.approx(expected)


def test_the_disparity_against_the_formula(monkeypatch):
    """What is ascended and what is counted, for logits of f' and of f on four rows."""
    asked = {}
    monkeypatch.setattr(module, "held_out_supremum", lambda *values: asked.update(values=values))
    held_out_disparity(torch.zeros(4, 1), torch.zeros(4, 3), torch.zeros(4))
    surrogate, gap, seed = asked["values"][3:]
    adversarial, logits = torch.randn(2, 4, 3, generator=torch.Generator().manual_seed(0))
    logits[0] = adversarial[0]
    said, p = logits.argmax(dim=1).tolist(), adversarial.softmax(dim=1).tolist()
    assert gap(adversarial, logits).tolist() == [max(row) != row[y] for row, y in zip(p, said)]
    assert gap(adversarial, logits).tolist() == [False, True, True, True]
    log_p = [math.log(row[y]) for row, y in zip(p, said)]
    log_q = [math.log(1 - row[y]) for row, y in zip(p, said)]
    found = surrogate(adversarial, logits, torch.tensor([1, 0, 1, 1])).item()
    assert found == pytest.approx((log_q[0] + log_q[2] + log_q[3]) / 3 + log_p[1], abs=1e-6)
    assert seed == 0


def test_the_adversary_is_fitted_in_float32(evaluation_set, monkeypatch):
    features, logits, domain, labels = evaluation_set
    asked = []
    monkeypatch.setattr(module, "held_out_disparity", lambda *values: asked.extend(values) or 0.0)
    mdd(features.bfloat16(), logits.bfloat16(), domain, labels, seed=3)
    assert [values.dtype for values in asked[:2]] == [torch.float32] * 2 and asked[3] == 3


def test_it_is_repeatable_and_works_without_gradients(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, logits, domain = clouds(1.0)
    labels = (features[:, 0] > 0).long()
    with torch.no_grad():
        assert mdd(features, logits, domain, labels) == mdd(features, logits, domain, labels)


def test_missing_labels_or_rows_raise(evaluation_set):
    features, logits, domain, labels = evaluation_set
    with pytest.raises(ValueError, match="`labels` is None"):
        mdd(features, logits, domain)
    with pytest.raises(ValueError, match="`domain` is None"):
        mdd(features, logits, None, labels)
    with pytest.raises(ValueError, match="target rows"):
        mdd(features, logits, torch.zeros(40), labels)
