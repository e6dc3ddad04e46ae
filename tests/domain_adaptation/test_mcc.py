import math
from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.mcc import MCC, minimum_class_confusion


def naive_confusion(logits, temperature):
    p = (logits / temperature).softmax(1)
    certainty = [1 + math.exp(sum(x * math.log(x) for x in row.tolist())) for row in p]
    weights = [len(p) * c / sum(certainty) for c in certainty]
    classes = range(p.shape[1])
    confusion = [[sum(w * row[i] * row[j] for w, row in zip(weights, p)) for j in classes] for i in classes]
    return sum(confusion[i][j] / sum(confusion[i]) for i in classes for j in classes if i != j) / len(classes)


def test_the_published_value(sines):
    assert minimum_class_confusion(sines["y"]).item() == pytest.approx(0.737087, abs=1e-6)


@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_value_and_gradient_against_the_formula(sines, temperature):
    logits = sines["yt"].clone().requires_grad_()
    expected_logits = sines["yt"].clone().requires_grad_()
    loss = minimum_class_confusion(logits, temperature)
    expected = naive_confusion(expected_logits, temperature)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, expected_logits.grad)


def test_certain_and_distinct_predictions_confuse_nothing():
    assert minimum_class_confusion(1e4 * torch.eye(4)).item() == 0


def test_a_class_nobody_predicts_is_finite():
    logits = torch.zeros(5, 3).index_fill(1, torch.tensor([2]), -1e4).requires_grad_()
    loss = minimum_class_confusion(logits)
    loss.backward()
    assert loss.isfinite() and logits.grad.isfinite().all()


def test_only_target_rows_count(make_view):
    view = make_view()
    loss = MCC()(view)
    torch.testing.assert_close(loss, minimum_class_confusion(view.logits[view.domain == 1]))
    loss.backward()
    assert (view.logits.grad[view.domain == 0] == 0).all()
    assert (view.logits.grad[view.domain == 1] != 0).any()


def test_a_batch_without_target_rows_gives_no_loss(make_view):
    assert MCC()(make_view(5, 0)).item() == 0


def test_bad_input_raises(make_view):
    with pytest.raises(ValueError, match="`temperature` should be positive"):
        MCC(temperature=0)
    with pytest.raises(ValueError, match="at least 2 classes"):
        MCC().build(BuildContext(None, 7, 1))
    with pytest.raises(ValueError, match="`domain`"):
        MCC()(replace(make_view(), domain=None))


def test_a_class_that_is_ruled_out_confuses_nothing():
    logits = torch.randn(20, 4, generator=torch.Generator().manual_seed(0), requires_grad=True)
    masked = minimum_class_confusion(logits + torch.tensor([0.0, -torch.inf, 0.0, 0.0]))
    rest = minimum_class_confusion(logits[:, [0, 2, 3]])
    torch.testing.assert_close(masked, rest * 3 / 4)
    gradients = [torch.autograd.grad(value, logits)[0] for value in (masked, rest * 3 / 4)]
    torch.testing.assert_close(*gradients)
