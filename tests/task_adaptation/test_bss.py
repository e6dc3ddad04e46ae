import pytest
import torch

from hf_transfer.task_adaptation.bss import BSS, batch_spectral_shrinkage

f_s = torch.arange(12, dtype=torch.float64).sin().reshape(4, 3)


def test_the_published_value():
    assert batch_spectral_shrinkage(f_s, k=2).item() == pytest.approx(0.147804, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2, 3])
def test_value_and_gradient_against_the_eigenvalues(k):
    features, naive = f_s.clone().requires_grad_(), f_s.clone().requires_grad_()
    loss = batch_spectral_shrinkage(features, k)
    expected = torch.linalg.eigvalsh(naive.T @ naive)[:k].sum()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(features.grad, naive.grad)


def test_all_of_them_are_the_squared_norm():
    torch.testing.assert_close(batch_spectral_shrinkage(f_s, k=10), f_s.square().sum())


def test_equal_singular_values_have_a_finite_gradient():
    features = torch.eye(4).requires_grad_()
    batch_spectral_shrinkage(features, k=2).backward()
    assert features.grad.isfinite().all()


def test_the_objective_reads_the_features(make_view):
    view = make_view()
    assert BSS(k=2)(view).item() == pytest.approx(batch_spectral_shrinkage(view.features, 2).item())
    assert BSS().weight == 1e-3


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`k` should be positive"):
        BSS(k=0)
