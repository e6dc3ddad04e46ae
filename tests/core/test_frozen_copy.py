import copy

import pytest
import torch
from torch import nn

from hf_transfer.core.frozen_copy import FLOAT32, FrozenCopy, averaged_copy, ema_update, frozen_copy


def test_parameters_are_averaged_and_buffers_copied():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    average = copy.deepcopy(model)
    before = [p.detach().clone() for p in model.parameters()]
    with torch.no_grad():
        for p in model.parameters():
            p.add_(1.0)
    model(torch.randn(4, 2))
    ema_update(average, model, momentum=0.9)
    for mean, start, value in zip(average.parameters(), before, model.parameters()):
        torch.testing.assert_close(mean, 0.9 * start + 0.1 * value)
    torch.testing.assert_close(average[1].running_mean, model[1].running_mean)


@pytest.mark.parametrize("begin", [averaged_copy, copy.deepcopy], ids=["averaged_copy", "a plain copy"])
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float32])
def test_a_thousand_small_steps_go_as_far_in_every_type(dtype, begin):
    """At momentum .999 they close 1 - .999^1000 = 63.2 % of the gap."""
    model = torch.nn.Sequential(torch.nn.Linear(3, 3), torch.nn.BatchNorm1d(3)).to(dtype)
    for parameter in model.parameters():
        torch.nn.init.ones_(parameter)
    average = begin(model)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 2.0)
    for _ in range(1000):
        ema_update(average, model, 0.999)
    for mean in average.parameters():
        assert mean.dtype == dtype
        torch.testing.assert_close(mean.float(), torch.full_like(mean.float(), 1.632), rtol=0, atol=5e-3)


def test_a_copy_from_a_checkpoint_goes_on_as_the_one_that_was_not_interrupted():
    torch.manual_seed(0)
    model = torch.nn.Linear(4, 4).bfloat16()
    straight = averaged_copy(model)

    def steps(average, seed):
        generator = torch.Generator().manual_seed(seed)
        for _ in range(20):
            with torch.no_grad():
                model.weight.add_(0.01 * torch.randn(4, 4, generator=generator))
            ema_update(average, model, 0.99)

    steps(straight, 1)
    stored = copy.deepcopy(straight.state_dict())
    weights = copy.deepcopy(model.state_dict())
    steps(straight, 2)
    model.load_state_dict(weights)
    resumed = averaged_copy(torch.nn.Linear(4, 4).bfloat16())
    resumed.load_state_dict(stored)
    steps(resumed, 2)
    for name, value in straight.state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert any(FLOAT32 in name for name in stored)


def test_only_what_trains_has_a_float32_average_and_the_rest_is_copied():
    model = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2)).bfloat16()
    model[0].requires_grad_(False)
    average = averaged_copy(model)
    assert list(average.float32_averages.state_dict()) == ["2", "3"]
    model[1].weight.data.add_(1.0)
    model[0].weight.data.add_(1.0)
    ema_update(average, model, 0.5)
    assert torch.equal(average[0].weight, model[0].weight)
    torch.testing.assert_close(average[1].weight.float(), model[1].weight.float() - 0.5, atol=0.01, rtol=0)


def test_momentum_zero_copies_and_a_float32_model_has_nothing_beside_it():
    model, average = torch.nn.Linear(2, 2).bfloat16(), frozen_copy(torch.nn.Linear(2, 2).bfloat16())
    ema_update(average, model, 0.0)
    assert torch.equal(average.weight, model.weight) and not hasattr(average, FLOAT32)
    assert averaged_copy(torch.nn.Linear(2, 2)).state_dict().keys() == {"weight", "bias"}
    assert not average.training and not average.weight.requires_grad


def test_a_momentum_out_of_range_raises():
    with pytest.raises(ValueError, match=r"\[0, ?1\]"):
        ema_update(torch.nn.Linear(2, 2), torch.nn.Linear(2, 2), 1.5)


def test_a_copy_sleeps_whatever_mode_is_around_it():
    model = nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.9))
    around = nn.ModuleList([FrozenCopy(model)])
    around.train()
    copied = around[0]
    assert around.training and not any(module.training for module in copied.modules())
    assert not any(parameter.requires_grad for parameter in copied.parameters())
    inputs = torch.randn(3, 2, requires_grad=True)
    torch.testing.assert_close(copied(inputs), model[0](inputs))
    copied(inputs).sum().backward()
    assert inputs.grad is not None


def test_a_copy_moves_by_its_momentum_or_one_of_the_step():
    model = nn.Linear(2, 2)
    copied, start = FrozenCopy(model, momentum=0.9), model.weight.detach().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    copied.update(model)
    torch.testing.assert_close(copied.module.weight, start + 0.1)
    copied.update(model, momentum=0.0)
    torch.testing.assert_close(copied.module.weight, model.weight)
    with pytest.raises(ValueError, match="without `momentum` stays as it is"):
        FrozenCopy(model).update(model)


def test_a_copy_in_bfloat16_moves_by_steps_too_small_for_its_type():
    model = nn.Linear(4, 4).bfloat16()
    copied = FrozenCopy(model, momentum=0.999)
    before = copied.module.weight.float().clone()
    with torch.no_grad():
        model.weight.add_(1.0)
    for _ in range(300):
        copied.update(model)
    gained = (copied.module.weight.float() - before).mean().item()
    assert gained == pytest.approx(1 - 0.999**300, abs=0.02)
