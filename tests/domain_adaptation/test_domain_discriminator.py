import math

import pytest
import torch

from hf_transfer.domain_adaptation.domain_discriminator import DomainDiscriminator, domain_discrimination_loss


def test_it_maps_rows_to_one_logit_each():
    discriminator = DomainDiscriminator(5, hidden_size=8)
    assert discriminator(torch.randn(6, 5)).shape == (6,)
    assert sum(isinstance(layer, torch.nn.BatchNorm1d) for layer in discriminator) == 2


def test_loss_is_the_mean_of_both_domains_with_source_as_one():
    logits = torch.tensor([2.0, -1.0, 0.5], requires_grad=True)
    domain = torch.tensor([0, 1, 1])
    weights = torch.tensor([1.0, 3.0, 0.5])
    loss = domain_discrimination_loss(logits, domain, weights)
    source = -math.log(1 / (1 + math.exp(-2.0)))
    target = (3 * -math.log(1 - 1 / (1 + math.exp(1.0))) + 0.5 * -math.log(1 - 1 / (1 + math.exp(-0.5)))) / 2
    assert loss.item() == pytest.approx(0.5 * (source + target), abs=1e-6)
    loss.backward()
    assert logits.grad[0].item() == pytest.approx(0.5 * (1 / (1 + math.exp(-2.0)) - 1), abs=1e-6)


def test_ignorance_costs_log_two():
    loss = domain_discrimination_loss(torch.zeros(5), torch.tensor([0, 0, 0, 0, 1]))
    assert loss.item() == pytest.approx(math.log(2))


def test_an_invalid_size_raises():
    with pytest.raises(ValueError, match="`hidden_size` should be positive"):
        DomainDiscriminator(5, hidden_size=0)
