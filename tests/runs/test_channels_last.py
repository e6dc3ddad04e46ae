"""Runs of convolutional nets in torch's channels_last layout."""

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import ModelArguments, parse_arguments
from hf_transfer.runs.models import load_model
from tests import tiny
from tests.runs.folders import QUICK, save_image_model

CHECKPOINTS = [*QUICK, "--save_strategy", "steps", "--save_steps", "1", "--max_steps", "3", "--logging_steps", "1"]


def adapt(output_dir: str, *more: str) -> dict[str, torch.Tensor]:
    """The saved weights of a run on two domains, whose teacher is a copy of the model."""
    settings = ["--model", "resnet", "--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20"]
    settings += ["--objectives", "{dann: {}, mean_teacher: {}}", "--output_dir", output_dir, *CHECKPOINTS, *more]
    run_adaptation(parse_arguments(settings))
    return load_file(f"{output_dir}/model/model.safetensors")


@pytest.fixture
def resnet(here):
    save_image_model(here / "resnet", tiny.resnet())


def test_a_run_differs_by_rounding_and_resumes_exactly(resnet, here):
    plain, turned = adapt("plain"), adapt("turned", "--channels_last", "true")
    assert plain.keys() == turned.keys()
    for name, value in plain.items():
        torch.testing.assert_close(turned[name], value, rtol=1e-3, atol=1e-4)
        assert turned[name].is_contiguous()
    (here / "begun").mkdir()
    (here / "turned" / "checkpoint-1").rename(here / "begun" / "checkpoint-1")
    resumed = adapt("begun", "--channels_last", "true", "--resume", "true")
    assert all(torch.equal(resumed[name], value) for name, value in turned.items())


def test_weights_are_turned_with_an_adapter_too(resnet):
    lora = {"peft_type": "LORA", "r": 2, "target_modules": ["convolution"]}
    for peft in (None, lora):
        model = load_model(ModelArguments(model="resnet", channels_last=True, peft=peft))
        weights = [weight for weight in model.parameters() if weight.dim() == 4 and min(weight.shape[1:3]) > 1]
        assert weights and all(weight.is_contiguous(memory_format=torch.channels_last) for weight in weights)


def test_a_model_without_convolutions_is_refused(here, tmp_path):
    tiny.bert().save_pretrained(tmp_path / "bert")
    with pytest.raises(ValueError, match="`channels_last` is a layout of 2-d convolutions, and BertFor.* has none"):
        load_model(ModelArguments(model=str(tmp_path / "bert"), task="text-classification", channels_last=True))
