import json
import shutil

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import (
    AutoConfig,
    AutoTokenizer,
    CLIPConfig,
    CLIPModel,
    T5Config,
    T5ForConditionalGeneration,
    ViTForImageClassification,
)

from hf_transfer.modeling.loading import load_model, revision_of, tower_of
from hf_transfer.modeling.processors import load_processor
from hf_transfer.models.flowformer import (
    FlowformerConfig,
    FlowformerForMaskedImageModeling,
    FlowformerForTimeSeriesClassification,
)
from tests import tiny


def copy_of(folder, tmp_path):
    return shutil.copytree(folder, tmp_path / folder.name)


def test_backbone_and_head(zoo):
    assert type(load_model(zoo / "vit0", str)).__name__ == "ViTModel"
    assert type(load_model(zoo / "vit0", str, with_head=True)).__name__ == "ViTForImageClassification"
    model = load_model(zoo / "gpt", str)
    assert not model.training and not any(weight.requires_grad for weight in model.parameters())


def test_flowformer_after_masked_image_modelling(tmp_path):
    config = FlowformerConfig.from_size(
        "tiny", modality="image", hidden_size=16, intermediate_size=32, image_size=8, patch_size=4, num_channels=1
    )
    FlowformerForMaskedImageModeling(config).save_pretrained(tmp_path)
    pixels = torch.randn(2, 1, 8, 8)
    first, second = (load_model(tmp_path, str)(pixel_values=pixels).last_hidden_state for _ in range(2))
    assert first.shape == (2, 4, 16) and torch.equal(first, second)


def test_the_head_of_a_model_of_series(tmp_path):
    sizes = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 1, "num_attention_heads": 2}
    config = FlowformerConfig(**sizes, modality="time_series", num_input_channels=1, num_labels=5)
    saved = FlowformerForTimeSeriesClassification(config).eval()
    saved.save_pretrained(tmp_path)
    series = torch.randn(2, 6, 1)
    loaded = load_model(tmp_path, str, with_head=True)
    torch.testing.assert_close(loaded(past_values=series).logits, saved(past_values=series).logits)


def test_a_head_that_is_not_there(zoo, tmp_path):
    with pytest.raises(ValueError, match="GPT2LMHeadModel, without the classification head"):
        load_model(zoo / "gpt", str, with_head=True)
    folder = copy_of(zoo / "vit0", tmp_path)
    config = AutoConfig.from_pretrained(folder)
    config.problem_type = "multi_label_classification"
    config.save_pretrained(folder)
    with pytest.raises(ValueError, match="do not exclude each other"):
        load_model(folder, str, with_head=True)


def test_missing_weights_are_not_replaced_by_random_ones(zoo, tmp_path):
    folder = copy_of(zoo / "vit0", tmp_path)
    weights = load_file(folder / "model.safetensors")
    weights.pop("vit.layernorm.weight")
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ValueError, match=r"lacks 1 weights of ViTModel \(such as layernorm.weight\)"):
        load_model(folder, str)


def test_pickled_weights_need_permission(zoo, tmp_path):
    folder = copy_of(zoo / "vit0", tmp_path)
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    with pytest.raises(OSError, match="safetensors"):
        load_model(folder, str)
    model = load_model(folder, str, allow_pickle=True)
    expected = ViTForImageClassification.from_pretrained(zoo / "vit0").vit
    torch.testing.assert_close(model.layernorm.weight, expected.layernorm.weight)


def test_remote_code_needs_permission(zoo, tmp_path):
    folder = copy_of(zoo / "vit0", tmp_path)
    config = json.loads((folder / "config.json").read_text())
    config |= {"model_type": "strange", "auto_map": {"AutoConfig": "code.Config", "AutoModel": "code.Model"}}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ValueError, match="trust_remote_code"):
        load_model(folder, str)


def test_the_encoder_of_an_encoder_decoder(tmp_path):
    config = T5Config(vocab_size=20, d_model=16, d_kv=8, d_ff=16, num_layers=1, num_heads=2)
    T5ForConditionalGeneration(config).save_pretrained(tmp_path / "t5")
    model = load_model(tmp_path / "t5", str)
    assert model(input_ids=torch.ones(1, 3, dtype=torch.long)).last_hidden_state.shape == (1, 3, 16)


def test_the_tower_that_reads_the_input(tmp_path):
    text = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    vision = {**text, "image_size": 8, "patch_size": 4}
    CLIPModel(CLIPConfig(text_config={**text, "vocab_size": 20}, vision_config=vision)).save_pretrained(tmp_path)
    model = load_model(tmp_path, str)
    assert tower_of(model, {"pixel_values"}, "ready") is model.vision_model
    assert tower_of(model, {"text"}, "text") is model.text_model


def test_processors(zoo):
    assert load_processor(zoo / "mae", "ready") is None
    assert load_processor(zoo / "gpt", "text").pad_token == "[PAD]"
    with pytest.raises(ValueError, match="no image processor for the image column"):
        load_processor(zoo / "mae", "image")
    with pytest.raises(ValueError, match="no tokenizer for the text column"):
        load_processor(zoo / "mae", "text")


def test_a_tokenizer_that_transformers_makes_up_is_none(tmp_path):
    tiny.bert().save_pretrained(tmp_path)
    assert len(AutoTokenizer.from_pretrained(tmp_path)) == 5, "the special tokens alone"
    with pytest.raises(ValueError, match="no tokenizer for the text column: it was saved without a vocabulary"):
        load_processor(tmp_path, "text")


def test_the_revision_follows_the_files(zoo, tmp_path):
    folder = copy_of(zoo / "vit0", tmp_path)
    before = revision_of(folder)
    assert revision_of(folder) == before
    (folder / "model.safetensors").touch()
    assert revision_of(folder) != before
    commit = tmp_path / "snapshots" / ("a" * 40)
    commit.mkdir(parents=True)
    assert revision_of(commit) == "a" * 40
