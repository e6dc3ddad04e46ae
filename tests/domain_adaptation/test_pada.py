import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.pada import PADA


def built(**keywords):
    torch.manual_seed(0)
    objective = PADA(hidden_size=16, **keywords)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    return objective


def naive_loss(objective, view, gamma, trade_off):
    source = [i for i, domain in enumerate(view.domain) if domain == 0]
    target = [i for i, domain in enumerate(view.domain) if domain == 1]
    losses = {i: -view.logits[i].log_softmax(0)[view.labels[i]] for i in source}
    weight = {i: gamma[view.labels[i]] for i in source}
    weighted = sum(weight[i] * losses[i] for i in source) / sum(weight.values())
    p = objective.discriminator(view.features).sigmoid()
    adversarial = sum(-weight[i] * p[i].log() for i in source) / len(source)
    adversarial = (adversarial + sum(-(1 - p[i]).log() for i in target) / len(target)) / 2
    return weighted - sum(losses.values()) / len(source) + trade_off * adversarial, trade_off * adversarial


def test_value_and_gradients_against_the_formula(make_view):
    objective = built(temperature=0.5, momentum=0.0, trade_off=0.7)
    view, naive = make_view(progress=0.3), make_view(progress=0.3)
    loss = objective(view)
    loss.backward()
    shares = (naive.logits[naive.domain == 1] / 0.5).softmax(1).mean(0).detach()
    expected, adversarial = naive_loss(objective, naive, shares / shares.max(), 0.7)
    torch.testing.assert_close(loss, expected)
    (feature_gradient,) = torch.autograd.grad(adversarial, naive.features, retain_graph=True)
    torch.testing.assert_close(view.features.grad, -math.tanh(1.5) * feature_gradient)
    expected.backward()
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)


def test_with_the_task_loss_it_is_the_weighted_task_loss(make_view):
    objective, view = built(trade_off=0.0), make_view()
    source = view.domain == 0
    task = torch.nn.functional.cross_entropy(view.logits[source], view.labels[source])
    total = task + objective(view)
    weights = objective.class_shares / objective.class_shares.max()
    expected = torch.nn.functional.cross_entropy(view.logits[source], view.labels[source], weight=weights)
    torch.testing.assert_close(total, expected)


def test_absent_classes_lose_their_weight(make_view):
    objective = built(momentum=0.5)
    for _ in range(20):
        weights = objective.class_weights(torch.tensor([[9.0, 0, 0, 0], [0, 9.0, 0, 0]]))
    assert weights.tolist() == pytest.approx([1.0, 1.0, 0.0, 0.0], abs=1e-4)


@pytest.mark.parametrize("keywords, momentum", [({}, 0.99), ({"momentum": 0.75}, 0.75)])
def test_the_class_shares_are_a_moving_average_of_the_batches_from_equal_shares(keywords, momentum):
    objective = built(temperature=2.0, **keywords)
    expected = [0.25] * 4
    for seed in range(3):
        logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(seed))
        batch = (logits / 2.0).softmax(1).mean(0).tolist()
        expected = [momentum * share + (1 - momentum) * new for share, new in zip(expected, batch)]
        weights = objective.class_weights(logits)
        assert weights.tolist() == pytest.approx([share / max(expected) for share in expected])
    assert objective.state_dict()["class_shares"].tolist() == pytest.approx(expected)


def test_one_domain_alone_gives_no_loss(make_view):
    assert built()(make_view(4, 0)).item() == 0


@pytest.mark.parametrize("keywords", [{"temperature": 0}, {"momentum": 1.0}, {"trade_off": -1}, {"warm_start": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        PADA(**keywords)
