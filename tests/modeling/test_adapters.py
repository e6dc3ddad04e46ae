from pathlib import Path

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from safetensors.torch import load_file, save_file
from transformers import AutoModel, BertForSequenceClassification, ViTForImageClassification

from hf_transfer.modeling.adapters import is_adapter
from hf_transfer.modeling.loading import load_model


@pytest.fixture
def vit_adapter(zoo, tmp_path):
    torch.manual_seed(0)
    base = ViTForImageClassification.from_pretrained(zoo / "vit0", num_labels=4, ignore_mismatched_sizes=True)
    config = LoraConfig(target_modules="all-linear", modules_to_save=["classifier"], init_lora_weights=False)
    adapted = get_peft_model(base, config).eval()
    adapted.save_pretrained(tmp_path / "adapter")
    return tmp_path / "adapter", adapted


def test_features_are_those_of_the_adapted_model(zoo, vit_adapter):
    folder, adapted = vit_adapter
    assert is_adapter(folder) and not is_adapter(zoo / "vit0")
    pixels = torch.randn(2, 1, 8, 8)
    expected = adapted.get_base_model().vit(pixels).last_hidden_state
    found = load_model(folder, Path)(pixels).last_hidden_state
    torch.testing.assert_close(found, expected)
    plain = AutoModel.from_pretrained(zoo / "vit0").eval()(pixels).last_hidden_state
    assert not torch.allclose(found, plain, atol=1e-3)


def test_the_adapter_brings_its_head(vit_adapter):
    folder, adapted = vit_adapter
    pixels = torch.randn(2, 1, 8, 8)
    torch.testing.assert_close(load_model(folder, Path, with_head=True)(pixels).logits, adapted(pixels).logits)


def test_an_adapter_for_text_by_its_task(zoo, tmp_path):
    base = BertForSequenceClassification.from_pretrained(zoo / "bert")
    adapted = get_peft_model(base, LoraConfig(task_type="SEQ_CLS", init_lora_weights=False)).eval()
    adapted.save_pretrained(tmp_path)
    ids = torch.tensor([[2, 3, 4]])
    found = load_model(tmp_path, Path)(ids).last_hidden_state
    torch.testing.assert_close(found, adapted.get_base_model().bert(ids).last_hidden_state)


def test_adapters_that_do_not_fit_are_refused(zoo, vit_adapter, tmp_path):
    folder, _ = vit_adapter
    weights = load_file(folder / "adapter_model.safetensors")
    weights.pop(next(name for name in weights if "lora_A" in name))
    save_file(weights, folder / "adapter_model.safetensors")
    with pytest.raises(ValueError, match="lacks weights"):
        load_model(folder, Path)
    (folder / "adapter_model.safetensors").unlink()
    with pytest.raises(ValueError, match="pickled adapters are not loaded"):
        load_model(folder, Path)


def test_virtual_tokens_are_refused(zoo, tmp_path):
    base = BertForSequenceClassification.from_pretrained(zoo / "bert")
    get_peft_model(base, PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="virtual tokens"):
        load_model(tmp_path, Path)
