import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.cdan import CDAN, RandomizedProduct, outer_product


def naive_loss(objective, view, entropy_conditioning):
    rows = []
    for feature, logit in zip(view.features, view.logits):
        g = (logit.exp() / logit.exp().sum()).detach()
        rows.append(torch.cat([feature * probability for probability in g]))
    probability = objective.discriminator(torch.stack(rows)).sigmoid()
    weights = [1.0] * len(rows)
    if entropy_conditioning:
        p = view.logits.detach().softmax(1)
        weights = [1 + math.exp((row * row.log()).sum()) for row in p]
        weights = [w * len(rows) / sum(weights) for w in weights]
    source = [-w * p.log() for w, p, d in zip(weights, probability, view.domain) if d == 0]
    target = [-w * (1 - p).log() for w, p, d in zip(weights, probability, view.domain) if d == 1]
    return (sum(source) / len(source) + sum(target) / len(target)) / 2


@pytest.mark.parametrize("entropy_conditioning", [False, True])
def test_value_and_gradients_against_the_formula(make_view, entropy_conditioning):
    torch.manual_seed(0)
    objective = CDAN(entropy_conditioning=entropy_conditioning, hidden_size=16)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    view, naive_view = make_view(progress=0.3), make_view(progress=0.3)
    loss = objective(view)
    loss.backward()
    expected = naive_loss(objective, naive_view, entropy_conditioning)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    torch.testing.assert_close(view.features.grad, -math.tanh(1.5) * naive_view.features.grad)
    assert view.logits.grad is None, "predictions condition the discriminator and are not trained by it"


def test_the_randomised_product_keeps_inner_products():
    generator = torch.Generator().manual_seed(1)
    f = torch.randn(2, 6, generator=generator)
    g = torch.rand(2, 5, generator=generator).softmax(1)
    exact = outer_product(f, g)
    random = RandomizedProduct(6, 5, out_dim=200_000)(f, g)
    torch.testing.assert_close(random @ random.T, exact @ exact.T, atol=0.05, rtol=0.05)


def test_wide_products_are_randomised_and_travel_with_the_checkpoint(make_view):
    objective, other = (CDAN(hidden_size=16, max_outer_dim=20, randomized_dim=9, seed=s) for s in (0, 1))
    for one in (objective, other):
        one.build(BuildContext(None, 7, 4))
        one.train(False)
    assert objective.discriminator[0].in_features == 9
    other.load_state_dict(objective.state_dict())
    assert objective(make_view()).item() == other(make_view()).item()


def test_one_domain_alone_gives_no_loss(make_view):
    objective = CDAN(hidden_size=16)
    objective.build(BuildContext(None, 7, 4))
    assert objective(make_view(4, 0)).item() == 0


@pytest.mark.parametrize("keyword", ["hidden_size", "max_reversal", "warm_start", "max_outer_dim", "randomized_dim"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be positive"):
        CDAN(**{keyword: 0})
