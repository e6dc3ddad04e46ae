"""What PEFT promises of every method, for every tuner of ours over architectures of every kind."""

from __future__ import annotations

import copy
import warnings

import pytest
import torch
from peft import (
    AutoPeftModel,
    AutoPeftModelForSequenceClassification,
    PeftConfig,
    PeftModel,
    get_peft_model,
    get_peft_model_state_dict,
    inject_adapter_in_model,
    set_peft_model_state_dict,
)
from safetensors.torch import load_file
from transformers import BertForSequenceClassification, Trainer, TrainingArguments

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.tuners.difference import DifferenceCallback, project
from tests import tiny
from tests.marks import slow
from tests.runs.folders import QUICK
from tests.tuners.conftest import CONFIGS, MERGEABLE, MODELS, adapted_model, base_model, inputs_for, logits, shake

CASES = [(name, kind) for name in MODELS for kind in CONFIGS]
LAYERS = [(name, kind) for name in ("bert", "gpt2", "resnet") for kind in CONFIGS]
STARTS_ELSEWHERE = "side"
every_case = pytest.mark.parametrize(("name", "kind"), CASES, ids=["-".join(case) for case in CASES])
every_layer = pytest.mark.parametrize(("name", "kind"), LAYERS, ids=["-".join(case) for case in LAYERS])
every_kind = pytest.mark.parametrize("kind", CONFIGS)


def weights_of(model: torch.nn.Module) -> dict[str, torch.Tensor]:
    return {name: value.clone() for name, value in model.state_dict().items()}


@every_case
def test_a_step_trains_the_adapter_and_nothing_else(name, kind):
    model, inputs = adapted_model(name, kind), inputs_for(name)
    if kind != STARTS_ELSEWHERE:
        assert torch.equal(logits(model, inputs), logits(base_model(name), inputs))
    before = weights_of(model)
    model.train()
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], lr=1e-2)
    first = model(**inputs, labels=torch.tensor([0, 1, 2])).loss
    first.backward()
    optimizer.step()
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert changed
    assert all("_tuner_" in key or "modules_to_save.default" in key for key in changed)
    assert all("base_layer" not in key.split("_tuner_")[-1].split(".") for key in changed)
    assert model(**inputs, labels=torch.tensor([0, 1, 2])).loss < first


@every_layer
def test_what_is_saved_comes_back(name, kind, tmp_path):
    model, inputs = adapted_model(name, kind), inputs_for(name)
    shake(model)
    expected = logits(model, inputs)
    assert not torch.equal(expected, logits(base_model(name), inputs))
    model.save_pretrained(tmp_path)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        loaded = PeftModel.from_pretrained(base_model(name), tmp_path, adapter_name="other")
    assert not [str(one.message) for one in caught if "adapter keys" in str(one.message)]
    assert torch.equal(logits(loaded, inputs), expected)
    config = PeftConfig.from_pretrained(tmp_path)
    assert type(config) is type(model.peft_config["default"]) and config.target_modules
    stored = load_file(tmp_path / "adapter_model.safetensors")
    assert all("_tuner_" in key or "classifier" in key or "score" in key for key in stored)
    trained = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    buffers = {key for key in stored if key.endswith(("running_mean", "running_var", "num_batches_tracked"))}
    assert len(stored) - len(buffers) == len(trained)


@every_layer
def test_adapters_are_switched_stacked_disabled_and_deleted(name, kind):
    model, inputs = adapted_model(name, kind, with_head=False), inputs_for(name)
    base = logits(base_model(name), inputs)
    model.add_adapter("second", CONFIGS[kind]())
    shake(model, "default")
    shake(model, "second", seed=3)
    first = logits(model, inputs)
    model.set_adapter("second")
    second = logits(model, inputs)
    assert not torch.allclose(first, second)
    trainable = {key for key, parameter in model.named_parameters() if parameter.requires_grad}
    assert trainable and all(".second" in key for key in trainable)
    model.base_model.set_adapter(["default", "second"])
    both = logits(model, inputs)
    assert not torch.allclose(both, first) and not torch.allclose(both, second)
    with model.disable_adapter():
        assert torch.equal(logits(model, inputs), base)
    assert torch.equal(logits(model, inputs), both)
    model.base_model.set_adapter(["default"])
    model.delete_adapter("second")
    assert torch.equal(logits(model, inputs), first)
    assert not [key for key in model.state_dict() if ".second" in key]


@every_layer
def test_merging_and_unloading(name, kind):
    model, inputs = adapted_model(name, kind, with_head=False), inputs_for(name)
    untouched = base_model(name).state_dict()
    shake(model)
    expected = logits(model, inputs)
    if kind not in MERGEABLE:
        with pytest.raises(ValueError, match=r"cannot be merged.*unload\(\)"):
            model.merge_and_unload()
    else:
        model.merge_adapter(safe_merge=True)
        assert torch.allclose(logits(model, inputs), expected, atol=1e-5)
        model.unmerge_adapter()
        assert torch.equal(logits(model, inputs), expected)
        merged = copy.deepcopy(model).merge_and_unload()
        assert type(merged) is type(base_model(name)) and merged.state_dict().keys() == untouched.keys()
        assert torch.allclose(logits(merged, inputs), expected, atol=1e-5)
    plain = model.unload()
    assert plain.state_dict().keys() == untouched.keys()
    assert all(torch.equal(value, untouched[key]) for key, value in plain.state_dict().items())


@pytest.mark.parametrize("kind", MERGEABLE)
def test_a_broken_adapter_is_not_merged_safely(kind):
    model = adapted_model("bert", kind, with_head=False)
    untouched = base_model("bert").state_dict()
    with torch.no_grad():
        next(p for p in model.parameters() if p.requires_grad).fill_(torch.nan)
    with pytest.raises(
        ValueError, match="NaNs detected in the merged weights. The adapter default seems to be broken"
    ):
        model.merge_adapter(safe_merge=True)
    assert all(torch.equal(value, untouched[key]) for key, value in model.unload().state_dict().items())


@every_layer
def test_layers_alone_can_be_injected(name, kind):
    model, inputs = adapted_model(name, kind, with_head=False), inputs_for(name)
    shake(model)
    state = get_peft_model_state_dict(model)
    injected = inject_adapter_in_model(CONFIGS[kind](), base_model(name)).eval()
    result = set_peft_model_state_dict(injected, state)
    assert not result.unexpected_keys
    assert torch.equal(logits(injected, inputs), logits(model, inputs))
    again = get_peft_model_state_dict(injected)
    assert [value.shape for value in again.values()] == [value.shape for value in state.values()]


@pytest.mark.parametrize("is_upcast", [True, False])
@every_kind
def test_half_precision(kind, is_upcast, tmp_path):
    inputs = inputs_for("bert")
    model = get_peft_model(base_model("bert").bfloat16(), CONFIGS[kind](), autocast_adapter_dtype=is_upcast).eval()
    shake(model)
    types = {parameter.dtype for parameter in model.parameters() if parameter.requires_grad}
    assert types == {torch.float32 if is_upcast else torch.bfloat16}
    if kind == "side" and is_upcast:
        # the whole side network is an adapter, so it computes in float32
        assert model.base_model.model.bert.side_tuner_networks["default"].pooler.dense.weight.dtype == torch.float32
    model.train()
    output = model(**inputs, labels=torch.tensor([0, 1, 2]))
    output.loss.backward()
    assert output.logits.dtype == torch.bfloat16 and output.loss.isfinite()
    model.eval().save_pretrained(tmp_path)
    loaded = PeftModel.from_pretrained(base_model("bert").bfloat16(), tmp_path, autocast_adapter_dtype=is_upcast)
    assert torch.equal(logits(loaded, inputs), logits(model, inputs))


@pytest.mark.parametrize("name", ["bert", "flowformer"])
@every_kind
def test_gradient_checkpointing_changes_no_gradient(name, kind):
    gradients = []
    for is_checkpointing in (False, True):
        model = adapted_model(name, kind)
        shake(model)
        if is_checkpointing:
            model.gradient_checkpointing_enable()
        model.train()
        torch.manual_seed(5)
        model(**inputs_for(name), labels=torch.tensor([0, 1, 2])).loss.backward()
        gradients.append({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients[0].keys() == gradients[1].keys() and gradients[0]
    assert all(torch.allclose(gradients[0][key], gradients[1][key], atol=1e-6) for key in gradients[0])


@every_kind
def test_mixed_batches_are_refused(kind):
    model = adapted_model("bert", kind)
    with pytest.raises(ValueError, match="has no mixed batches.*`set_adapter`"):
        model(**inputs_for("bert"), adapter_names=["default", "default", "__base__"])


@every_kind
def test_auto_classes_load_adapters(kind, tmp_path):
    base_model("bert").save_pretrained(tmp_path / "bert")
    start = BertForSequenceClassification.from_pretrained(tmp_path / "bert")
    model = get_peft_model(start, CONFIGS[kind](task_type="SEQ_CLS")).eval()
    shake(model)
    if kind == "difference":
        project(model)
    folder, inputs = tmp_path / "adapter", inputs_for("bert")
    model.save_pretrained(folder)
    expected = logits(model, inputs)
    assert torch.equal(logits(AutoPeftModelForSequenceClassification.from_pretrained(folder), inputs), expected)
    # transformers reads adapters by itself, too
    assert torch.equal(logits(BertForSequenceClassification.from_pretrained(folder).eval(), inputs), expected)


@pytest.mark.parametrize("kind", ["serial", "difference", slow("side")])
def test_a_plain_trainer_trains_and_resumes(kind, digits, tmp_path):
    def trainer(folder: str, **changes) -> Trainer:
        torch.manual_seed(0)
        settings = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "use_cpu": True}
        quiet = {"report_to": [], "disable_tqdm": True, "logging_strategy": "no", "save_steps": 3}
        args = TrainingArguments(str(tmp_path / folder), **{**settings, **quiet, **changes})
        return Trainer(adapted_model("vit", kind), args, train_dataset=digits, callbacks=[DifferenceCallback()])

    straight = trainer("straight")
    straight.train()
    resumed = trainer("resumed")
    resumed.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-3"))
    batch = {"pixel_values": tiny.batch_of(digits)["pixel_values"]}
    expected = logits(straight.model.eval(), batch)
    assert not torch.allclose(expected, logits(adapted_model("vit", kind), batch))
    assert torch.equal(logits(resumed.model.eval(), batch), expected)


@pytest.mark.parametrize(
    "settings",
    [
        "peft_type: RESIDUAL, r: 2",
        slow("peft_type: DIFFERENCE"),
        slow("peft_type: SIDE"),
    ],
)
def test_a_run_from_settings(settings, here):
    arguments = ["--model", "flow", "--dataset", "digits", "--test_dataset", "more_digits", *QUICK]
    metrics = run_adaptation(parse_arguments([*arguments, "--output_dir", "out", "--peft", f"{{{settings}}}"]))
    assert run_evaluation("out/model", "more_digits") == pytest.approx(metrics)
    loaded = AutoPeftModel.from_pretrained("out/model", import_allowlist=["hf_transfer", "transformers"])
    card = (here / "out" / "model" / "README.md").read_text()
    assert "import hf_transfer" in card and type(loaded.active_peft_config).paper in card


def test_a_run_from_wrong_settings_is_refused(here):
    arguments = ["--model", "vit", "--dataset", "digits", "--output_dir", "out", *QUICK]
    with pytest.raises(ValueError, match="`placement` should be one of"):
        run_adaptation(parse_arguments([*arguments, "--peft", "{peft_type: RESIDUAL, placement: above}"]))
