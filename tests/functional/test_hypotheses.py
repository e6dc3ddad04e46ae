import pytest
import torch

from hf_transfer.functional.hypotheses import fit, perceptron, standardised

pytestmark = pytest.mark.usefixtures("fitted")


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


def test_a_perceptron_against_the_formula():
    state = torch.random.get_rng_state()
    hypothesis = perceptron(9, 2, generator())
    assert torch.equal(state, torch.random.get_rng_state()), "only the generator's randomness is used up"
    draws = generator()
    first, second = torch.randn(64, 9, generator=draws) / 3, torch.randn(2, 64, generator=draws) / 8
    rows = torch.randn(5, 9, generator=generator(1))
    torch.testing.assert_close(hypothesis(rows), (rows @ first.T).clamp_min(0) @ second.T)


def test_fitting_goes_down_the_loss_and_freezes():
    rows = torch.randn(40, 3, generator=generator())
    wanted = rows[:, :1].abs()
    hypothesis = perceptron(3, 1, generator(1))

    def loss():
        return (hypothesis(rows) - wanted).square().mean()

    before = loss().item()
    with torch.no_grad():
        fit(hypothesis, loss)
    assert loss().item() < 0.05 * before
    assert not any(parameter.requires_grad for parameter in hypothesis.parameters())


def test_columns_on_one_scale():
    values = torch.tensor([[1.0, 5.0], [3.0, 5.0], [5.0, 5.0]])
    assert standardised(values).tolist() == [pytest.approx(row) for row in ([-1, 0], [0, 0], [1, 0])]
