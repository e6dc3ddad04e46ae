import pytest
import torch

from hf_transfer.domain_adaptation.afn import AFN


def test_value_and_gradient_against_the_formula(make_view):
    view = make_view(6, 3)
    loss = AFN(step=0.5)(view)
    assert loss.item() == pytest.approx(2 * 0.5**2)
    loss.backward()
    for row, gradient, domain in zip(view.features.detach(), view.features.grad, view.domain):
        count = 6 if domain == 0 else 3
        torch.testing.assert_close(gradient, -2 * 0.5 * row / row.norm() / count)


def test_a_step_down_the_gradient_lengthens_every_row(make_view):
    view = make_view()
    AFN()(view).backward()
    longer = (view.features - 0.1 * view.features.grad).norm(dim=1)
    assert (longer > view.features.norm(dim=1)).all()


def test_one_domain_alone_is_lengthened_too(make_view):
    assert AFN()(make_view(0, 4)).item() == pytest.approx(1.0)


def test_zero_features_have_a_finite_gradient(make_view):
    view = make_view()
    view.features.data.zero_()
    AFN()(view).backward()
    assert view.features.grad.isfinite().all()


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`step` should be positive"):
        AFN(step=0)
