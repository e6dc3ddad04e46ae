import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.iwan import IWAN


def built(**keywords):
    torch.manual_seed(0)
    objective = IWAN(hidden_size=16, **keywords)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    return objective


def domain_loss(p, view, weights):
    source = [-w * q.log() for q, w, d in zip(p, weights, view.domain) if d == 0]
    target = [-(1 - q).log() for q, d in zip(p, view.domain) if d == 1]
    return (sum(source) / len(source) + sum(target) / len(target)) / 2


def test_value_and_gradients_against_the_formula(make_view):
    objective = built(entropy_weight=0.3)
    view, naive = make_view(progress=0.3), make_view(progress=0.3)
    loss = objective(view)
    loss.backward()
    weigher_gradients = [p.grad.clone() for p in objective.weigher.parameters()]
    objective.zero_grad()
    p = objective.weigher(naive.features.detach()).sigmoid()
    mean = (1 - p.detach())[naive.domain == 0].mean()
    weighing = domain_loss(p, naive, [1.0] * len(p))
    adversarial = domain_loss(objective.discriminator(naive.features).sigmoid(), naive, (1 - p.detach()) / mean)
    q = naive.logits[naive.domain == 1].softmax(1)
    entropy = -(q * q.log()).sum(1).mean()
    torch.testing.assert_close(loss, weighing + adversarial + 0.3 * entropy)
    (weighing + adversarial + 0.3 * entropy).backward()
    torch.testing.assert_close(view.features.grad, -math.tanh(1.5) * naive.features.grad)
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)
    for got, parameter in zip(weigher_gradients, objective.weigher.parameters()):
        torch.testing.assert_close(got, parameter.grad)


def test_source_rows_unlike_the_target_count_less():
    weights = IWAN.row_weights(torch.tensor([4.0, 0.0, -1.0, 2.0]), torch.tensor([0, 0, 0, 1]))
    assert weights[0] < weights[1] < weights[2]
    assert weights[:3].mean().item() == pytest.approx(1.0) and weights[3] == 1


def test_one_domain_alone_gives_no_loss(make_view):
    assert built()(make_view(0, 4)).item() == 0


@pytest.mark.parametrize("keywords", [{"entropy_weight": -1}, {"hidden_size": 0}, {"max_reversal": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        IWAN(**keywords)
