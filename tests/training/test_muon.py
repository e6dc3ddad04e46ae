"""Muon for hidden matrices and AdamW for the rest: as PyTorch's two optimizers apart, and resumed exactly."""

import copy

import pytest
import torch
from torch import nn

from hf_transfer.training.muon import MuonWithAdamW, muon_groups
from hf_transfer.training.trainer import TransferTrainer
from tests import tiny
from tests.runs.folders import causal_lm
from tests.training.test_trainer import assert_same, config, state_of


def net() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 5), nn.LayerNorm(5), nn.Linear(5, 4))


def groups_of(model: nn.Sequential, **more) -> list[dict]:
    matrices = [module.weight for module in model if isinstance(module, nn.Linear)]
    rest = [p for p in model.parameters() if all(p is not matrix for matrix in matrices)]
    return [{"params": matrices, "use_muon": True, **more}, {"params": rest, "use_muon": False, **more}]


def train(model: nn.Module, optimizers, steps: int, schedulers=()) -> None:
    inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
    for _ in range(steps):
        for optimizer in optimizers:
            optimizer.zero_grad()
        model(inputs).square().mean().backward()
        for optimizer in optimizers:
            optimizer.step()
        for scheduler in schedulers:
            scheduler.step()


def test_it_steps_as_the_two_optimizers_apart():
    ours, theirs = net(), net()
    one = MuonWithAdamW(groups_of(ours, weight_decay=0.1), lr=0.02)
    matrices, rest = (group["params"] for group in groups_of(theirs))
    apart = [
        torch.optim.Muon(matrices, lr=0.02, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw"),
        torch.optim.AdamW(rest, lr=0.02, weight_decay=0.1),
    ]
    halving = [torch.optim.lr_scheduler.ExponentialLR(each, 0.5) for each in (one, *apart)]
    train(ours, [one], 4, halving[:1])
    train(theirs, apart, 4, halving[1:])
    for value, wanted in zip(ours.parameters(), theirs.parameters()):
        torch.testing.assert_close(value, wanted, rtol=0, atol=0)


def test_a_state_that_is_loaded_goes_on():
    straight, resumed = net(), net()
    whole = MuonWithAdamW(groups_of(straight), lr=0.02)
    train(straight, [whole], 3)
    resumed.load_state_dict(straight.state_dict())
    state = copy.deepcopy(whole.state_dict())
    train(straight, [whole], 2)
    other = MuonWithAdamW(groups_of(resumed), lr=1.0)
    other.load_state_dict(state)
    train(resumed, [other], 2)
    for value, wanted in zip(resumed.parameters(), straight.parameters()):
        assert torch.equal(value, wanted)


@pytest.mark.parametrize("make", [tiny.vit, causal_lm, lambda: tiny.with_lora(tiny.vit())])
def test_hidden_matrices_alone_go_to_muon(make):
    model = make()
    trained = [parameter for parameter in model.parameters() if parameter.requires_grad]
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    groups = muon_groups(model, [{"params": trained, "lr": 0.1}])
    assert sum(len(group["params"]) for group in groups) == len(trained) and all(g["lr"] == 0.1 for g in groups)
    chosen = {names[id(p)] for group in groups if group["use_muon"] for p in group["params"]}
    assert chosen and all(name.endswith("weight") for name in chosen)
    assert not any(
        word in name for name in chosen for word in ("embed", "norm", "ln_", "lm_head", "wte", "classifier")
    )


def test_a_resumed_run_equals_a_straight_one(tmp_path, digits):
    def make(folder, **changes) -> TransferTrainer:
        torch.manual_seed(0)
        args = config(folder, torch_optimizer="Muon", learning_rate=1e-2, weight_decay=0.01, **changes)
        return TransferTrainer(tiny.vit(), args, objectives={"l2_sp": {}}, train_dataset=digits)

    straight = make(tmp_path, max_steps=6, save_strategy="steps", save_steps=3)
    start = state_of(straight)
    straight.train()
    assert any(not torch.equal(value, start[name]) for name, value in state_of(straight).items())
    resumed = make(tmp_path, max_steps=6)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-3"))
    assert_same(state_of(resumed), state_of(straight), rtol=0, atol=0)


def test_it_fits_a_line_of_matrices_in_fewer_steps_than_plain_descent():
    ends = {}
    for name in ("muon", "sgd"):
        model = net()
        made = (
            MuonWithAdamW(groups_of(model), lr=0.1) if name == "muon" else torch.optim.SGD(model.parameters(), lr=0.1)
        )
        train(model, [made], 40)
        inputs = torch.randn(16, 6, generator=torch.Generator().manual_seed(1))
        ends[name] = model(inputs).square().mean().item()
    assert ends["muon"] < 0.5 * ends["sgd"]
