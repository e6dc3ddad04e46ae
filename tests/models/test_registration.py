"""Importing hf_transfer is enough for the Auto classes and for PEFT; registering twice is nothing."""

import json

import pytest
import torch
from peft import (
    AdaLoraConfig,
    IA3Config,
    LNTuningConfig,
    LoraConfig,
    PrefixTuningConfig,
    PromptTuningConfig,
    get_peft_model,
)
from peft.utils import constants
from PIL import Image
from transformers import AttentionInterface, AutoConfig, AutoImageProcessor, ViTImageProcessorPil, pipeline

import hf_transfer  # noqa: F401
from hf_transfer.models.flowformer import (
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForSequenceClassification,
)
from hf_transfer.models.registration import register
from tests.models.flowformer.tiny import tiny_config, tiny_inputs


def test_registering_again_changes_nothing():
    register()
    register()
    assert type(AutoConfig.for_model("flowformer")).__name__ == "FlowformerConfig"
    assert "flow" in AttentionInterface().valid_keys()


def test_the_image_processor_is_known(tmp_path):
    """A folder whose processor does not name its class, as older ones, is read by the model's."""
    FlowformerForImageClassification(tiny_config("image", num_channels=3)).save_pretrained(tmp_path)
    ViTImageProcessorPil(size={"height": 8, "width": 8}).save_pretrained(tmp_path)
    stored = tmp_path / "preprocessor_config.json"
    for named in (True, False):
        if not named:
            fields = json.loads(stored.read_text())
            del fields["image_processor_type"]
            stored.write_text(json.dumps(fields))
        processor = AutoImageProcessor.from_pretrained(tmp_path)
        assert isinstance(processor, ViTImageProcessorPil) and processor.size["height"] == 8
    classify = pipeline("image-classification", model=str(tmp_path))
    assert len(classify(Image.new("RGB", (20, 12)))) == 3


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        (LoraConfig(r=2), {"q_proj", "v_proj"}),
        (IA3Config(), {"k_proj", "v_proj", "fc2"}),
        (AdaLoraConfig(init_r=2, total_step=10), {"q_proj", "v_proj"}),
        (LNTuningConfig(), {"attention_norm", "mlp_norm", "norm"}),
    ],
    ids=lambda value: type(value).__name__,
)
def test_peft_knows_which_layers_to_adapt(config, expected):
    config.task_type = "SEQ_CLS"
    model = get_peft_model(FlowformerForSequenceClassification(tiny_config()), config)
    adapted = {name.split(".")[-1] for name in model.targeted_module_names}
    assert adapted == expected
    output = model(**tiny_inputs(tiny_config()), labels=torch.tensor([0, 1]))
    output.loss.backward()
    trained = [name for name, weight in model.named_parameters() if weight.requires_grad and weight.grad is not None]
    assert trained


def test_every_table_of_peft_is_its_own():
    tables = [
        table
        for name, table in vars(constants).items()
        if name.startswith("TRANSFORMERS_MODELS_TO_") and name.endswith("_TARGET_MODULES_MAPPING")
    ]
    assert len(tables) > 20
    lists = [table["flowformer"] for table in tables]
    assert len({id(entry) for entry in lists}) >= len({id(table) for table in tables}) - 1


def test_lora_generates_and_merges():
    torch.manual_seed(0)
    model = get_peft_model(FlowformerForCausalLM(tiny_config()).eval(), LoraConfig(r=2, task_type="CAUSAL_LM"))
    for name, weight in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(weight)
    ids = tiny_inputs(tiny_config())["input_ids"]
    tokens = model.generate(input_ids=ids, max_new_tokens=4, do_sample=False)
    assert torch.equal(model.merge_and_unload().generate(ids, max_new_tokens=4, do_sample=False), tokens)


def test_prompts_work_and_prefixes_are_refused():
    ids = tiny_inputs(tiny_config())["input_ids"]
    prompted = get_peft_model(
        FlowformerForCausalLM(tiny_config()), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    )
    prompted(input_ids=ids, labels=ids).loss.backward()
    assert prompted.generate(input_ids=ids, max_new_tokens=2, do_sample=False).shape == (2, 9)
    prefix = PrefixTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2)
    with pytest.raises(ValueError, match="flow state"):
        get_peft_model(FlowformerForCausalLM(tiny_config()), prefix)(input_ids=ids)
