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


def test_the_hard_form_against_the_formula(make_view):
    view = make_view(6, 3, dtype=torch.float64)
    loss = AFN(norm=2.5)(view)
    loss.backward()
    wanted = 0.0
    for domain, count in ((0, 6), (1, 3)):
        rows = view.features.detach()[view.domain == domain]
        gap = sum(row.square().sum().sqrt() for row in rows) / count - 2.5
        wanted += gap.item() ** 2
        torch.testing.assert_close(
            view.features.grad[view.domain == domain],
            torch.stack([2 * gap * row / row.norm() / count for row in rows]),
        )
    assert loss.item() == pytest.approx(wanted)


def test_the_hard_form_stops_at_its_norm(make_view):
    view = make_view()
    with torch.no_grad():
        view.features.copy_(3 * view.features / view.features.norm(dim=1, keepdim=True))
    loss = AFN(norm=3.0)(view)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-10)
    torch.testing.assert_close(view.features.grad, torch.zeros_like(view.features), atol=1e-5, rtol=0)


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
    with pytest.raises(ValueError, match="`norm` should be positive"):
        AFN(norm=-1)
