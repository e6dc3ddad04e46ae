"""Difference tuning against its formulas: gates, penalty, projection, sparse files, exact merging, BitFit."""

from __future__ import annotations

import math

import pytest
import torch
from peft import PeftModel, get_peft_model
from safetensors.torch import load_file
from torch import nn
from transformers import Trainer, TrainingArguments

from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.tuners import adapter_callbacks
from hf_transfer.tuners.difference import (
    DifferenceCallback,
    DifferenceConfig,
    DifferenceLayer,
    changed_parameters,
    hard_concrete,
    open_probability,
    project,
    sparsity_penalty,
)
from hf_transfer.tuners.difference.model import tensors_of, to_dense, to_sparse
from hf_transfer.tuners.difference.sparsity import target_share
from tests import tiny
from tests.tuners.conftest import adapted_model, base_model, inputs_for, logits, shake

SHARE = 0.05


def layer_of(base: nn.Module, **settings) -> DifferenceLayer:
    torch.manual_seed(0)
    layer = DifferenceLayer(base, "default", DifferenceConfig(**settings)).double()
    for name, parameter in layer.difference_tuner_tensors.named_parameters():
        nn.init.normal_(parameter, std=0.02 if "gate" in name else 1.0)
    return layer


def test_gates_follow_the_formula():
    log_alpha = torch.linspace(-6, 6, 7, dtype=torch.float64, requires_grad=True)
    z = hard_concrete(log_alpha, is_random=False)
    expected = (torch.sigmoid(log_alpha) * 1.2 - 0.1).clamp(0, 1)
    assert torch.allclose(z, expected) and z[0] == 0 and z[-1] == 1
    (gradient,) = torch.autograd.grad(z.sum(), log_alpha)
    s = torch.sigmoid(log_alpha)
    inside = (expected > 0) & (expected < 1)
    assert torch.allclose(gradient, torch.where(inside, 1.2 * s * (1 - s), torch.zeros_like(s)))
    torch.manual_seed(0)
    wide = torch.full((200_000,), -1.0)
    drawn = hard_concrete(wide, is_random=True)
    assert drawn.min() == 0 and drawn.max() == 1
    probability = 1 / (1 + math.exp(1 + 2 / 3 * math.log(0.1 / 1.1)))
    assert open_probability(wide)[0].item() == pytest.approx(probability)
    assert (drawn > 0).float().mean().item() == pytest.approx(probability, abs=0.005)


@pytest.mark.parametrize("is_structured", [False, True])
def test_a_layer_follows_the_formula(is_structured):
    layer = layer_of(nn.Linear(4, 3), is_structured=is_structured, gate_rate=50.0).eval()
    x = torch.randn(5, 4, dtype=torch.float64)
    tensors = layer.difference_tuner_tensors["default"]

    def changed(name, start):
        one = tensors[name]
        z = hard_concrete(50 * one.gate, is_random=False)
        z = z * hard_concrete(50 * one.tensor_gate, is_random=False) if is_structured else z
        return start + z * one.delta

    def naive():
        return x @ changed("weight", layer.base_layer.weight).T + changed("bias", layer.base_layer.bias)

    assert torch.allclose(layer(x), naive(), atol=1e-12)
    weights = list(tensors.parameters())
    ours, expected = (torch.autograd.grad(value.square().sum(), weights) for value in (layer(x), naive()))
    assert all(torch.allclose(one, other, atol=1e-9) for one, other in zip(ours, expected, strict=True))
    layer.train()
    assert not torch.equal(layer(x), layer(x))  # gates are drawn


def test_the_penalty_follows_the_formula_and_the_target_falls():
    config = DifferenceConfig(share=0.1, project_at=0.8)
    assert [target_share(config, progress) for progress in (0.0, 0.2, 0.4, 0.7)] == pytest.approx(
        [1.0, 0.1 + 0.9 * 0.5**3, 0.1, 0.1]
    )
    model = adapted_model("bert", "difference", with_head=False, penalty=3.0)
    shake(model)
    tensors = tensors_of(model, "default").values()
    opened = sum(
        (open_probability(100 * one.gate) * open_probability(100 * one.tensor_gate)).sum().item() for one in tensors
    )
    share = opened / sum(one.delta.numel() for one in tensors)
    penalty = sparsity_penalty(model, progress=0.5)
    assert penalty.item() == pytest.approx(3.0 * (share - 0.05), rel=1e-5)
    assert sparsity_penalty(model, progress=0.0).item() == 0
    penalty.backward()
    assert all(one.gate.grad.min() > 0 for one in tensors)
    assert sparsity_penalty(adapted_model("bert", "bit_fit"), progress=0.5) is None


def test_the_projection_keeps_the_largest_changes_of_all_tensors():
    model = adapted_model("vit", "difference", with_head=False)
    shake(model)
    tensors = list(tensors_of(model, "default").values())
    with torch.no_grad():
        before = [one.difference().clone() for one in tensors]
    everything = torch.cat([one.abs().flatten() for one in before])
    count = round(SHARE * len(everything))
    threshold = everything.sort(descending=True).values[count - 1]
    report = project(model, SHARE)
    assert (report.changed, report.adapted) == (count, len(everything))
    assert report.total == sum(p.numel() for p in base_model("vit").parameters())
    assert f"{count:,} of {report.total:,} parameters changed" in str(report) and changed_parameters(model) == report
    for one, old in zip(tensors, before, strict=True):
        assert torch.equal(one.difference(), torch.where(old.abs() >= threshold, old, torch.zeros_like(old)))
    with pytest.raises(ValueError, match="nothing to project"):
        project(model)
    fresh = adapted_model("vit", "difference")
    with pytest.raises(ValueError, match=r"`share` should be in \(0, 1\], got 1.5"):
        project(fresh, 1.5)
    assert project(fresh).changed == 0  # an untrained adapter changes nothing


def test_what_is_kept_can_be_trained_further():
    model, inputs = adapted_model("vit", "difference", with_head=False), inputs_for("vit")
    shake(model)
    project(model, SHARE)
    kept = {name: one.mask.clone() for name, one in tensors_of(model, "default").items()}
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    expected = logits(model, inputs)
    model.train()(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
    optimizer.step()
    assert not torch.equal(logits(model.eval(), inputs), expected)
    for name, one in tensors_of(model, "default").items():
        assert torch.equal(one.mask, kept[name]) and not one.difference()[~kept[name]].any()


def test_a_sparse_file_holds_what_changed_and_merges_exactly(tmp_path):
    model, inputs = adapted_model("gpt2", "difference", with_head=False), inputs_for("gpt2")
    shake(model)
    report = project(model, SHARE)
    expected = logits(model, inputs)
    model.save_pretrained(tmp_path)
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert {key.rsplit(".", 1)[-1] for key in stored} == {"index", "value"}
    assert sum(len(value) for key, value in stored.items() if key.endswith("index")) == report.changed
    assert sum(value.nbytes for value in stored.values()) == 8 * report.changed
    start = base_model("gpt2").state_dict()
    loaded = PeftModel.from_pretrained(base_model("gpt2"), tmp_path, low_cpu_mem_usage=True)
    assert torch.equal(logits(loaded, inputs), expected) and changed_parameters(loaded) == report
    loaded.save_pretrained(tmp_path / "again")
    again = load_file(tmp_path / "again" / "adapter_model.safetensors")
    assert again.keys() == stored.keys() and all(torch.equal(again[key], stored[key]) for key in stored)
    merged = loaded.merge_and_unload(safe_merge=True)
    assert torch.equal(logits(merged, inputs), expected)
    for key, value in merged.state_dict().items():
        layer, _, name = key.rpartition(".")
        prefix = f"base_model.model.{layer}.difference_tuner_tensors.{name}"
        theta = start[key].flatten().clone()
        if f"{prefix}.index" in stored:
            theta[stored[f"{prefix}.index"].long()] += stored[f"{prefix}.value"]
        assert torch.equal(value.flatten(), theta), key


def test_before_and_after_the_projection_load_into_each_other(tmp_path):
    model, inputs = adapted_model("vit", "difference", with_head=False), inputs_for("vit")
    shake(model)
    dense = logits(model, inputs)
    model.save_pretrained(tmp_path / "dense")
    project(model, SHARE)
    sparse = logits(model, inputs)
    model.save_pretrained(tmp_path / "sparse")
    model.load_adapter(tmp_path / "dense", "default", is_trainable=True)
    assert torch.equal(logits(model, inputs), dense)
    model.load_adapter(tmp_path / "sparse", "default", is_trainable=True)
    assert torch.equal(logits(model, inputs), sparse)


def test_a_sparse_adapter_learns_on(tmp_path):
    model, inputs = adapted_model("vit", "difference"), inputs_for("vit")
    shake(model)
    project(model, SHARE)
    model.save_pretrained(tmp_path)
    assert model.peft_config["default"].kept is None  # a further model from this configuration starts from nothing
    loaded = PeftModel.from_pretrained(base_model("vit"), tmp_path, is_trainable=True)
    before = {name: one.difference() != 0 for name, one in tensors_of(loaded, "default").items()}
    loaded.train()(**inputs, labels=torch.tensor([0, 1, 2])).loss.backward()
    torch.optim.Adam([p for p in loaded.parameters() if p.requires_grad], lr=1e-2).step()
    assert not torch.equal(logits(loaded.eval(), inputs), logits(model, inputs))
    for name, one in tensors_of(loaded, "default").items():
        assert not one.difference()[~before[name]].any()


def test_index_and_value():
    delta = torch.tensor([[0.0, 2.0], [3.0, 0.0]])
    index, value = to_sparse(delta, delta != 0)
    assert index.tolist() == [1, 2] and index.dtype == torch.int32 and value.tolist() == [2.0, 3.0]
    again, mask = to_dense(index, value, delta.shape)
    assert torch.equal(again, delta) and torch.equal(mask, delta != 0)
    with pytest.raises(ValueError, match="another model's"):
        to_dense(torch.tensor([4]), torch.tensor([1.0]), delta.shape)


@pytest.mark.parametrize("name", ["bert", "gpt2", "resnet", "flowformer"])
def test_bit_fit_changes_every_bias_of_the_backbone_and_nothing_else(name):
    model = adapted_model(name, "bit_fit", with_head=False)
    base = base_model(name)
    biases = {key for key, _ in base.named_parameters() if key.endswith(".bias") and "classifier" not in key}
    adapted = {f"{key}.bias" for key in model.targeted_module_names}
    assert adapted == biases
    trainable = sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)
    assert trainable == sum(base.get_parameter(key).numel() for key in biases)
    assert adapter_callbacks(model) == []


@pytest.mark.parametrize("accumulation", [1, 2])
def test_the_callback_adds_the_gradient_of_the_penalty_once_a_step(accumulation, digits, tmp_path):
    model = adapted_model("vit", "difference", project_at=1.0)
    shake(model)
    seen = []

    class Spy(DifferenceCallback):
        def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
            gates = [one.gate for one in tensors_of(model, "default").values()]
            before = [gate.grad.clone() for gate in gates]
            super().on_pre_optimizer_step(args, state, control, model=model, **kwargs)
            penalty = sparsity_penalty(model, state.global_step / state.max_steps)
            naive = torch.autograd.grad(penalty, gates)
            seen.extend(zip(gates_after(gates), before, naive, strict=True))

    def gates_after(gates):
        return [gate.grad.clone() for gate in gates]

    args = TrainingArguments(
        str(tmp_path),
        max_steps=2,
        per_device_train_batch_size=4,
        gradient_accumulation_steps=accumulation,
        use_cpu=True,
        report_to=[],
        disable_tqdm=True,
        save_strategy="no",
    )
    Trainer(model, args, train_dataset=digits, callbacks=[Spy()]).train()
    assert len(seen) == 2 * len(tensors_of(model, "default"))
    assert all(torch.allclose(after, before + naive, atol=1e-8) for after, before, naive in seen)
    assert any(naive.abs().sum() > 0 for _, _, naive in seen)


def test_our_trainer_sparsifies_by_itself_and_resumes_exactly(digits, tmp_path):
    def trainer(folder: str, **changes) -> TransferTrainer:
        torch.manual_seed(0)
        settings = {"max_steps": 6, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "use_cpu": True}
        quiet = {"report_to": [], "disable_tqdm": True, "save_steps": 2}
        args = TransferConfig(str(tmp_path / folder), **{**settings, **quiet, **changes})
        model = get_peft_model(
            tiny.vit(), DifferenceConfig(share=SHARE, project_at=0.5, modules_to_save=["classifier"])
        )
        return TransferTrainer(model, args, train_dataset=digits)

    straight = trainer("straight")
    straight.train()
    model = straight.adapted_model.eval()
    report = changed_parameters(model)
    assert report.changed == round(SHARE * report.adapted)
    expected = logits(model, inputs_for("vit"))
    for step in (2, 4):  # before and after the projection at step 3
        resumed = trainer(f"resumed-{step}")
        resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / f"checkpoint-{step}"))
        assert torch.equal(logits(resumed.adapted_model.eval(), inputs_for("vit")), expected)


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"share": 0.0}, r"`share` should be in \(0, 1\], got 0.0"),
        ({"project_at": 2}, r"`project_at` should be in \(0, 1\], got 2"),
        ({"penalty": -1}, "`penalty` should be at least 0"),
        ({"gate_rate": 0}, "`gate_rate` should be positive"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(ValueError, match=message):
        DifferenceConfig(**settings)


def test_a_layer_without_a_bias_has_no_bit_fit():
    with pytest.raises(ValueError, match="Linear has no bias: choose other `target_modules`"):
        DifferenceLayer(nn.Linear(2, 2, bias=False), "default", DifferenceConfig(bias_only=True))
