"""Merged adapters compute what the adapters did; what cannot be exported is refused before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import AutoModelForImageClassification

from hf_transfer.hub import MethodFact, RunFacts, complete_adapter, read_facts, write_card
from hf_transfer.runs.export import EXPORTER, export_folder
from tests import tiny


@pytest.fixture
def lora(here) -> Path:
    """A LoRA adapter of `vit` with weights that change something, and the facts of its run."""
    base = AutoModelForImageClassification.from_pretrained("vit")
    torch.manual_seed(0)
    model = tiny.with_lora(base)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if "lora_B" in name or "modules_to_save" in name:
                weight.normal_(std=0.5)
    model.save_pretrained("lora")
    complete_adapter("lora", None)
    facts = RunFacts("lora", "image-classification", "AutoPeftModel", loads_with="peft", summary="Digits.")
    write_card("lora", facts)
    Path("lora/results.json").write_text('{"accuracy": 0.5}')
    return Path("lora")


def test_a_merged_adapter_computes_the_same_and_loads_without_peft(lora):
    assert export_folder(lora, "merged") == Path("merged")
    base = AutoModelForImageClassification.from_pretrained("vit")
    pixels = tiny.batch_of(tiny.digit_rows(0, 8))["pixel_values"]
    plain = base.eval()(pixel_values=pixels).logits
    adapted = PeftModel.from_pretrained(base, str(lora)).eval()(pixel_values=pixels).logits
    merged = AutoModelForImageClassification.from_pretrained("merged").eval()(pixel_values=pixels).logits
    assert torch.allclose(merged, adapted, atol=1e-5)
    assert not torch.allclose(merged, plain, atol=1e-2)
    assert not list(Path("merged").glob("adapter_*"))


def test_the_merged_folder_has_its_own_card_and_the_records_of_the_run(lora):
    export_folder(lora, "merged")
    facts = read_facts("merged")
    assert (facts.loads_with, facts.auto_class) == ("transformers", "AutoModelForImageClassification")
    assert (facts.model_name, facts.summary) == ("merged", "Digits.")
    assert 'from_pretrained("merged")' in Path("merged/README.md").read_text()
    assert Path("merged/results.json").read_text() == '{"accuracy": 0.5}'


def test_an_ordinary_folder_has_nothing_to_merge(here):
    with pytest.raises(ValueError, match="is an ordinary model folder"):
        export_folder("vit", "out")
    with pytest.raises(FileNotFoundError, match="no folder `nowhere`"):
        export_folder("nowhere", "out")
    assert not Path("out").exists()


def test_what_is_there_stays(lora):
    Path("merged").mkdir()
    Path("merged/kept.txt").write_text("mine")
    with pytest.raises(FileExistsError):
        export_folder(lora, "merged")
    assert [path.name for path in Path("merged").iterdir()] == ["kept.txt"]
    export_folder(lora, "merged", overwrite=True)
    assert Path("merged/model.safetensors").is_file()


def test_virtual_tokens_cannot_be_merged(here):
    model = get_peft_model(tiny.bert(), PromptTuningConfig(task_type="SEQ_CLS", num_virtual_tokens=2))
    model.save_pretrained("prompt")
    path = Path("prompt/adapter_config.json")
    path.write_text(path.read_text().replace('"base_model_name_or_path": null', '"base_model_name_or_path": "bert"'))
    path.write_text(path.read_text().replace('"base_model_name_or_path": ""', '"base_model_name_or_path": "bert"'))
    with pytest.raises(ValueError, match="PROMPT_TUNING adapter `prompt` cannot be merged"):
        export_folder("prompt", "out", task="text-classification")
    assert not Path("out").exists()


def test_without_optimum_onnx_is_refused_with_what_to_do(lora, monkeypatch):
    monkeypatch.setitem(sys.modules, EXPORTER, None)
    with pytest.raises(ValueError, match="optimum's exporter, which cannot be imported .*environment of its own"):
        export_folder(lora, "out", onnx=True)


def test_optimum_gets_an_ordinary_folder_and_the_task(lora, monkeypatch):
    asked = []

    def main_export(folder: str, output: str, task: str) -> None:
        AutoModelForImageClassification.from_pretrained(folder)
        asked.append(task)
        Path(output, "model.onnx").write_bytes(b"onnx")

    monkeypatch.setitem(sys.modules, EXPORTER, SimpleNamespace(main_export=main_export))
    export_folder(lora, "out", onnx=True)
    assert asked == ["image-classification"] and Path("out/model.onnx").read_bytes() == b"onnx"
    export_folder("vit", "whole", onnx=True)
    with pytest.raises(ValueError, match="needs the architecture flowformer of this package"):
        export_folder("flow", "ours", onnx=True)


def test_the_facts_of_a_card_are_read_as_they_were_written(tmp_path):
    facts = RunFacts(
        "m",
        "text-classification",
        "AutoModel",
        load_options={"id2label": {0: "no", 1: "yes"}},
        methods=[MethodFact("CDAN", "1705.10667", {"weight": 0.1})],
    )
    write_card(tmp_path, facts)
    read = read_facts(tmp_path)
    assert read.load_options == facts.load_options and read.methods == facts.methods
    assert read.software == facts.software
    card = (tmp_path / "README.md").read_text()
    write_card(tmp_path, read)
    assert (tmp_path / "README.md").read_text() == card
