import numpy as np
import pytest
import torch

from hf_transfer.domain_adaptation.coral import CORAL, correlation_alignment


def test_the_published_value(sines):
    assert correlation_alignment(sines["f_s"], sines["f_t"]).item() == pytest.approx(0.202236, abs=1e-6)


def test_value_against_numpy(make_view):
    view = make_view(6, 4)
    covariances = [np.cov(view.features[view.domain == d].detach().numpy().T.astype(float)) for d in (0, 1)]
    expected = ((covariances[0] - covariances[1]) ** 2).sum() / (4 * 7**2)
    assert CORAL()(view).item() == pytest.approx(expected, rel=1e-5)


def test_gradient_against_differences(sines):
    source, target = (sines[k].clone().requires_grad_() for k in ("f_s", "f_t"))
    assert torch.autograd.gradcheck(correlation_alignment, (source, target))


def test_identical_domains_give_zero_and_a_shift_is_not_seen(sines):
    assert correlation_alignment(sines["f_s"], sines["f_s"]).item() == 0
    assert correlation_alignment(sines["f_s"], sines["f_s"] + 3).item() == pytest.approx(0, abs=1e-12)


def test_fewer_than_two_rows_of_a_domain_give_no_loss(make_view):
    assert CORAL()(make_view(4, 1)).item() == 0


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`weight`"):
        CORAL(weight=-1.0)
    with pytest.raises(TypeError):
        CORAL(k=1)
