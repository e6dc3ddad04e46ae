import math
from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_generalization.groupdro import GroupDRO


@pytest.fixture
def sources(make_view):
    """Eleven labelled rows of environments 0 and 2."""
    environment = torch.tensor([0, 2, 2, 0, 2, 2, 0, 2, 2, 2, 2])
    return lambda **kwargs: replace(make_view(11, 0, **kwargs), domain=environment)


def built(**keywords):
    objective = GroupDRO(num_environments=3, **keywords)
    objective.build(BuildContext(None, 7, 4))
    return objective


def test_value_and_gradient_against_the_formula(sources):
    objective = built(step_size=0.5)
    view, naive = sources(), sources()
    loss = objective(view)
    loss.backward()
    losses = [-logits.log_softmax(0)[label] for logits, label in zip(naive.logits, naive.labels)]
    risk = {}
    for e in (0, 2):
        rows = [losses[i] for i in range(11) if naive.domain[i] == e]
        risk[e] = sum(rows) / len(rows)
    q = [math.exp(0.5 * risk[0].item()), 1.0, math.exp(0.5 * risk[2].item())]
    q = [value / sum(q) for value in q]
    expected = (q[0] * risk[0] + q[2] * risk[2]) / (q[0] + q[2]) - sum(losses) / 11
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)
    assert objective.q.tolist() == pytest.approx(q)


def test_the_hard_environment_gains_weight(sources):
    objective, view = built(step_size=1.0), sources()
    hard = view.labels.clone()
    logits = torch.zeros(11, 4).scatter(1, hard.unsqueeze(1), 5.0)
    logits[view.domain == 2] *= -1
    for _ in range(5):
        objective(replace(view, logits=logits))
    assert objective.q[2] > 0.99


def test_a_weight_may_fall_below_the_smallest_float(sources):
    objective, view = built(step_size=100.0), sources()
    easy = torch.zeros(11, 4).scatter(1, view.labels.unsqueeze(1), torch.where(view.domain == 0, 9.0, -9.0)[:, None])
    for _ in range(20):
        objective(replace(view, logits=easy))
    assert objective.q[0] == 0 and objective.q[2] == pytest.approx(1.0)
    alone = view.rows(view.domain == 0)
    loss = objective(alone)
    loss.backward()
    assert loss.item() == pytest.approx(0.0, abs=1e-6) and alone.logits.isfinite().all()


def test_two_batches_before_one_backward(sources):
    objective = built()
    (objective(sources()) + objective(sources(seed=3))).backward()


def test_one_environment_alone_is_the_task_loss(sources):
    view = sources()
    alone = built()(replace(view, domain=torch.zeros_like(view.domain)))
    assert alone.item() == pytest.approx(0.0, abs=1e-6)


def test_unlabelled_rows_give_no_loss(make_view):
    assert built()(make_view(0, 5)).item() == 0


def test_bad_input_raises(sources):
    with pytest.raises(ValueError, match="`step_size`"):
        GroupDRO(step_size=0)
    objective = GroupDRO(num_environments=2)
    objective.build(BuildContext(None, 7, 4))
    with pytest.raises(ValueError, match="set `num_environments`"):
        objective(sources())
