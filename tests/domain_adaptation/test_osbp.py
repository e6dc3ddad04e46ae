import math
from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.domain_adaptation.osbp import OSBP, unknown_class_loss


@pytest.mark.parametrize("unknown", [0.5, 0.3])
def test_value_and_gradient_against_the_formula(sines, unknown):
    logits, naive = (sines["y"].clone().requires_grad_() for _ in range(2))
    loss = unknown_class_loss(logits, unknown)
    p = naive.softmax(1)[:, -1]
    expected = -(unknown * p.log() + (1 - unknown) * (1 - p).log()).mean()
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, naive.grad)


def test_it_is_least_where_unknown_has_its_probability():
    at_half = torch.tensor([[0.0, 0.0, math.log(2.0)]])
    assert unknown_class_loss(at_half).item() == pytest.approx(math.log(2))
    assert unknown_class_loss(at_half + torch.tensor([0.0, 0.0, 0.5])).item() > math.log(2)


def test_the_head_descends_and_the_features_ascend(make_view, tiny_model):
    objective = OSBP(max_reversal=0.8)
    objective.build(BuildContext(tiny_model, 8, 4))
    view, naive = (replace(make_view(feature_dim=8, progress=0.3), model=tiny_model) for _ in range(2))
    objective(view).backward()
    head_gradient = tiny_model.classifier.weight.grad.clone()
    tiny_model.zero_grad()
    unknown_class_loss(tiny_model.classifier(naive.features[naive.domain == 1])).backward()
    torch.testing.assert_close(head_gradient, tiny_model.classifier.weight.grad)
    torch.testing.assert_close(view.features.grad, -0.8 * math.tanh(1.5) * naive.features.grad)


def test_a_batch_without_target_rows_gives_no_loss(make_view, tiny_model):
    assert OSBP()(replace(make_view(4, 0), model=tiny_model)).item() == 0


def test_bad_input_raises():
    with pytest.raises(ValueError, match=r"`unknown` should be in \(0, 1\)"):
        OSBP(unknown=1.0)
    with pytest.raises(ValueError, match="`max_reversal`"):
        OSBP(max_reversal=0)
    with pytest.raises(ValueError, match="2 known classes"):
        OSBP().build(BuildContext(None, 8, 2))


def test_an_adapter_on_the_head_counts_and_learns(make_view, lora_on_the_head):
    view = replace(make_view(feature_dim=8), model=lora_on_the_head)
    objective = OSBP()
    objective.build(BuildContext(lora_on_the_head, 8, 4))
    loss = objective(view)
    head = lora_on_the_head.get_base_model().classifier
    torch.testing.assert_close(loss, unknown_class_loss(head(view.features[view.domain == 1])))
    loss.backward()
    assert head.lora_A["default"].weight.grad.abs().max() > 0 and head.base_layer.weight.grad is None
