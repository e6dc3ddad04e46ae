import pytest
import torch

from hf_transfer.validators.mdd import held_out_disparity, mdd


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


def test_the_score_is_minus_source_error_minus_disparity():
    features, logits, domain = clouds(3.0)
    labels = (features[:, 0] > 0).long()
    labels[:16] = 1 - labels[:16]
    labels[domain == 1] = -100
    expected = -(16 / 80 + held_out_disparity(features, logits, domain))
    assert mdd(features, logits, domain, labels) == pytest.approx(expected)


def test_it_is_repeatable_and_works_without_gradients():
    features, logits, domain = clouds(1.0)
    labels = (features[:, 0] > 0).long()
    with torch.no_grad():
        assert mdd(features, logits, domain, labels) == mdd(features, logits, domain, labels)


def test_missing_labels_or_rows_raise(evaluation_set):
    features, logits, domain, labels = evaluation_set
    with pytest.raises(ValueError, match="`labels` is None"):
        mdd(features, logits, domain)
    with pytest.raises(ValueError, match="target rows"):
        mdd(features, logits, torch.zeros(40), labels)
