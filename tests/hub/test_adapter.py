"""Adapters keep the names of their classes and find their base from every working directory."""

import json
import shutil
from pathlib import Path

import pytest
from peft import LoraConfig, PeftConfig, get_peft_model
from transformers import AutoModelForSequenceClassification, PreTrainedConfig

from hf_transfer.hub import adapter_class_names, adapter_outputs, complete_adapter, find_base


@pytest.fixture
def project(tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder `project` with `base/tiny` and, trained from inside by a relative path, the adapter `out/model`."""
    root = tmp_path / "project"
    shutil.copytree(tiny_model, root / "base" / "tiny")
    monkeypatch.chdir(root)
    model = AutoModelForSequenceClassification.from_pretrained("base/tiny")
    get_peft_model(model, LoraConfig(target_modules=["query"])).save_pretrained("out/model")
    monkeypatch.chdir(tmp_path)
    return root


def edit(adapter: Path, **changes) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_names_come_back_in_the_order_of_the_outputs(project: Path) -> None:
    adapter = project / "out" / "model"
    assert adapter_class_names(adapter) is None
    complete_adapter(adapter, PreTrainedConfig(num_labels=2))
    assert adapter_class_names(adapter) is None, "made-up names are none"
    names = {place: f"class {place}" for place in range(11)}
    complete_adapter(adapter, PreTrainedConfig(id2label=names, problem_type="multi_label_classification"))
    assert adapter_outputs(adapter)["id2label"] == names
    assert adapter_outputs(adapter)["problem_type"] == "multi_label_classification"
    assert adapter_class_names(adapter) == [f"class {place}" for place in range(11)]
    config = PeftConfig.from_pretrained(str(adapter))
    assert config.auto_mapping["base_model_class"] == "BertForSequenceClassification"


def test_a_local_base_is_saved_so_that_it_is_found_from_everywhere(project: Path, monkeypatch) -> None:
    monkeypatch.chdir(project)
    complete_adapter("out/model", PreTrainedConfig())
    assert PeftConfig.from_pretrained("out/model").base_model_name_or_path == str((project / "base/tiny").resolve())


@pytest.mark.parametrize("named", ["base/tiny", "./base/tiny", "../old/base/tiny", "/somewhere/else/base/tiny"])
def test_the_base_is_looked_for_beside_the_adapter(project: Path, named: str, caplog) -> None:
    adapter = project / "out" / "model"
    edit(adapter, base_model_name_or_path=named)
    assert Path(find_base(adapter)) == (project / "base" / "tiny").resolve()
    assert json.loads((adapter / "adapter_config.json").read_text())["base_model_name_or_path"] == named


def test_a_name_of_the_hub_is_not_taken_apart(project: Path) -> None:
    edit(project / "out" / "model", base_model_name_or_path="lab/tiny")
    (project / "tiny").mkdir()
    (project / "tiny" / "config.json").write_text("{}")
    assert find_base(project / "out" / "model") == "lab/tiny"


@pytest.mark.parametrize(("named", "message"), [("/gone/away", "base model `/gone/away`"), (None, "names no base")])
def test_a_base_that_is_nowhere_is_named(project: Path, named: str | None, message: str) -> None:
    edit(project / "out" / "model", base_model_name_or_path=named)
    with pytest.raises(ValueError, match=message):
        find_base(project / "out" / "model")
