import pytest
import torch
from peft import LoraConfig, TaskType, get_peft_model

from hf_transfer.core.objective import BuildContext
from hf_transfer.task_adaptation.l2_sp import L2SP


def test_value_and_gradient_against_the_formula(tiny_model, make_view):
    objective = L2SP(alpha=0.3, beta=0.02)
    start = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    objective.build(BuildContext(tiny_model, 8, 3))
    with torch.no_grad():
        for p in tiny_model.parameters():
            p.add_(0.1 * torch.randn_like(p))
    loss = objective(make_view(tiny_model))
    expected = 0.0
    for name, p in tiny_model.named_parameters():
        if name.startswith("classifier"):
            expected += 0.02 / 2 * (p**2).sum().item()
        else:
            expected += 0.3 / 2 * ((p - start[name]) ** 2).sum().item()
    assert loss.item() == pytest.approx(expected, rel=1e-5)
    loss.backward()
    for name, p in tiny_model.named_parameters():
        gradient = 0.02 * p if name.startswith("classifier") else 0.3 * (p - start[name])
        torch.testing.assert_close(p.grad, gradient.detach())


def test_the_starting_point_costs_only_the_head(tiny_model, make_view):
    objective = L2SP(beta=0.0)
    objective.build(BuildContext(tiny_model, 8, 3))
    assert objective(make_view(tiny_model)).item() == 0


def test_with_lora_it_measures_the_adapter(tiny_model, make_view):
    model = get_peft_model(tiny_model, LoraConfig(task_type=TaskType.SEQ_CLS, target_modules=["query"], r=2))
    objective = L2SP(alpha=1.0, beta=0.0)
    objective.build(BuildContext(model, 8, 3))
    moved = next(p for name, p in model.named_parameters() if "lora_B" in name)
    with torch.no_grad():
        moved.fill_(0.5)
    assert objective(make_view(model)).item() == pytest.approx(0.5 * 0.25 * moved.numel())


@pytest.mark.parametrize("keyword", ["alpha", "beta", "weight"])
def test_an_invalid_keyword_raises(keyword):
    with pytest.raises(ValueError, match=f"`{keyword}` should be at least 0"):
        L2SP(**{keyword: -1})
