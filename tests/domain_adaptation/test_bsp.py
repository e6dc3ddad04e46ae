import pytest
import torch

from hf_transfer.domain_adaptation.bsp import BSP, batch_spectral_penalty


def test_the_published_value(sines):
    assert batch_spectral_penalty(sines["f_s"], sines["f_t"]).item() == pytest.approx(11.704319, abs=1e-6)


@pytest.mark.parametrize("k", [1, 2])
def test_value_and_gradient_against_the_eigenvalues(sines, k):
    ours, naive = ([sines[n].clone().requires_grad_() for n in ("f_s", "f_t")] for _ in range(2))
    loss = batch_spectral_penalty(*ours, k)
    expected = sum(torch.linalg.eigvalsh(f.T @ f)[-k:].sum() for f in naive)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for got, want in zip(ours, naive):
        torch.testing.assert_close(got.grad, want.grad)


def test_the_objective_takes_each_domain_alone(make_view):
    view = make_view()
    expected = batch_spectral_penalty(view.features[view.domain == 0], view.features[view.domain == 1])
    torch.testing.assert_close(BSP()(view), expected)
    assert BSP().weight == 2e-4
    assert BSP()(make_view(0, 4)).item() == 0


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`k` should be positive"):
        BSP(k=0)
