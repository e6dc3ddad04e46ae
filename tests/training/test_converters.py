"""What every converter keeps: the names of the weights, an exact resume, and a folder that AutoModel reads."""

import pytest
import torch
from transformers import AutoModelForImageClassification, default_data_collator

from hf_transfer.training.converters import REGISTRY, conversions_of, convert_model, converter
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny

KEYWORDS = {"mix_style": {"p": 1.0}, "lit": {"tower": "resnet"}}


def keywords_of(name: str, folder) -> dict:
    """The defaults, and another model of the same architecture for those who ask for one."""
    if name not in ("zoo_tuning", "hub_pathway", "teacher_layers"):
        return KEYWORDS.get(name, {})
    torch.manual_seed(1)
    tiny.resnet().save_pretrained(folder / "source")
    return {"checkpoints": [str(folder / "source")]}


def trainer(folder, rows, name: str, **changes) -> TransferTrainer:
    keywords = keywords_of(name, folder)
    torch.manual_seed(0)
    model = convert_model(tiny.resnet(), {name: keywords})
    fields = {"max_steps": 3, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_strategy": "no"}
    args = TransferConfig(str(folder), report_to=[], use_cpu=True, disable_tqdm=True, **{**fields, **changes})
    return TransferTrainer(model, args, train_dataset=rows, data_collator=default_data_collator)


@pytest.mark.parametrize("name", sorted(set(REGISTRY) - {"coop", "tent"}))  # of two towers, and of no training
def test_it_trains_resumes_exactly_and_saves_an_ordinary_model(tmp_path, digits, name):
    rows = tiny.two_domains(digits.select(range(24)))
    straight = trainer(tmp_path, rows, name, save_strategy="steps", save_steps=2)
    straight.train()
    resumed = trainer(tmp_path, rows, name)
    with torch.no_grad():
        for tensor in resumed.transfer_model.state_dict().values():
            tensor.add_(1)  # whatever is not restored shows
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    state = resumed.transfer_model.state_dict()
    for key, value in straight.transfer_model.state_dict().items():
        assert torch.equal(value, state[key]), f"{key} differs after resuming"

    loaded, report = AutoModelForImageClassification.from_pretrained(
        tmp_path / "checkpoint-3", output_loading_info=True
    )
    assert not report["missing_keys"] and not report["unexpected_keys"]
    pixels = tiny.batch_of(digits)["pixel_values"]
    assert torch.equal(loaded.eval()(pixels).logits, straight.adapted_model.eval()(pixels).logits)


def test_conversions_are_remembered():
    model = convert_model(tiny.resnet(), {"stoch_norm": {"p": 0.3}, "mix_style": None})
    assert conversions_of(model) == {"stoch_norm": {"p": 0.3}, "mix_style": {}}
    assert conversions_of(tiny.resnet()) == {} and convert_model(model, None) is model
    assert converter("dsbn").paper == "1906.03950"


@pytest.mark.parametrize(
    "spec, error, message",
    [
        ({"nope": {}}, ValueError, r"unknown converter `nope`, accepted: \['bit', 'coop', 'dsbn'"),
        ({"stoch_norm": 0.5}, TypeError, "`stoch_norm`: keywords should be a mapping"),
        ({"stoch_norm": {"q": 0.5}}, TypeError, "`stoch_norm` has no keyword `q`"),
        ({"stoch_norm": {"p": 2}}, ValueError, "`p` should be in"),
    ],
)
def test_a_wrong_specification_raises(spec, error, message):
    with pytest.raises(error, match=message):
        convert_model(tiny.resnet(), spec)
