import pytest
import torch

from hf_transfer.domain_adaptation.dan import DAN, multi_kernel_mmd

SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)


def naive_kernel(rows):
    distances = torch.stack([torch.stack([((a - b) ** 2).sum() for b in rows]) for a in rows])
    return sum(torch.exp(-distances / (2 * scale * distances.detach().mean())) for scale in SCALES)


def naive_mmd(source, target):
    n = len(source)
    k = naive_kernel(torch.cat([source, target]))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    return sum(k[i, j] + k[n + i, n + j] - k[i, n + j] - k[n + i, j] for i, j in pairs) / len(pairs)


def naive_linear(source, target):
    n = len(source)
    k = naive_kernel(torch.cat([source, target]))
    terms = [k[i, i + 1] + k[n + i, n + i + 1] - k[i, n + i + 1] - k[i + 1, n + i] for i in range(0, n - 1, 2)]
    return sum(terms) / len(terms)


@pytest.mark.parametrize(("linear", "naive"), [(False, naive_mmd), (True, naive_linear)])
def test_value_and_gradient_against_the_formula(sines, linear, naive):
    source, target = (sines[k].clone().requires_grad_() for k in ("f_s", "f_t"))
    other_source, other_target = (sines[k].clone().requires_grad_() for k in ("f_s", "f_t"))
    loss = multi_kernel_mmd(source, target, linear=linear)
    expected = naive(other_source, other_target)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(source.grad, other_source.grad)
    torch.testing.assert_close(target.grad, other_target.grad)


@pytest.mark.parametrize("linear", [False, True])
def test_the_same_rows_on_both_sides_give_zero(sines, linear):
    assert multi_kernel_mmd(sines["f_s"], sines["f_s"], linear=linear).item() == pytest.approx(0.0, abs=1e-12)


def test_constant_features_are_finite():
    source = torch.ones(3, 2, requires_grad=True)
    loss = multi_kernel_mmd(source, torch.ones(4, 2))
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and source.grad.isfinite().all()


def test_the_objective_compares_the_domains(make_view):
    view = make_view(6, 4)
    expected = multi_kernel_mmd(view.features[view.domain == 0], view.features[view.domain == 1])
    torch.testing.assert_close(DAN()(view), expected)


def test_fewer_than_two_rows_of_a_domain_give_no_loss(make_view):
    assert DAN()(make_view(4, 1)).item() == 0


@pytest.mark.parametrize("scales", [(), (1.0, 0.0)])
def test_an_invalid_keyword_raises(scales):
    with pytest.raises(ValueError, match="scales"):
        DAN(scales=scales)
