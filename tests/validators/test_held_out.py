import pytest
import torch

from hf_transfer.functional.hypotheses import perceptron
from hf_transfer.validators.held_out import held_out_supremum
from hf_transfer.validators.rows import split_halves

pytestmark = pytest.mark.usefixtures("fitted")


def test_against_both_folds_written_out(monkeypatch):
    """Two steps of fitting f' on one half, and its gaps on the other."""
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    draws = torch.Generator().manual_seed(0)
    features, answers = torch.randn(20, 3, generator=draws), torch.randn(20, 1, generator=draws)
    domain = torch.arange(20) % 2
    scaled = (features - features.mean(0)) / features.std(0)
    half = torch.from_numpy(split_halves(domain.numpy(), 5))
    counted = []
    for fitted in (half, ~half):
        adversary = perceptron(3, 1, torch.Generator().manual_seed(5))
        optimizer = torch.optim.AdamW(adversary.parameters(), lr=0.01, weight_decay=0.1)
        for _ in range(2):
            optimizer.zero_grad()
            gaps = (adversary(scaled[fitted]) - answers[fitted]).tanh()[:, 0]
            (gaps[domain[fitted] == 0].mean() - gaps[domain[fitted] == 1].mean()).backward()
            optimizer.step()
        gaps = (adversary(scaled[~fitted]) - answers[~fitted]).detach().abs()[:, 0]
        counted.append(gaps[domain[~fitted] == 1].mean() - gaps[domain[~fitted] == 0].mean())

    def surrogate(adversarial, answers, domain):
        gaps = (adversarial - answers).tanh().squeeze(1)
        return gaps[domain == 1].mean() - gaps[domain == 0].mean()

    def gap(adversarial, answers):
        return (adversarial - answers).abs().squeeze(1)

    default, zero = (held_out_supremum(features, answers, domain, surrogate, gap, *seed) for seed in ((), (0,)))
    found = held_out_supremum(features, answers, domain, surrogate, gap, seed=5)
    assert default == zero != found
    assert found == pytest.approx(sum(counted).item() / 2, abs=1e-6)
