"""Merged adapters compute what the adapters did; what cannot be exported is refused before anything is written."""

from __future__ import annotations

import copy
import sys
from pathlib import Path

import pytest
import torch
from peft import PeftModel, PromptTuningConfig, get_peft_model
from transformers import (
    AutoModelForCausalLM,
    AutoModelForImageClassification,
    BertForQuestionAnswering,
    BertForTokenClassification,
    PreTrainedConfig,
)
from transformers.exporters import ExportedModel, OnnxExporter

from hf_transfer.hub import MethodFact, RunFacts, complete_adapter, read_facts, write_card
from hf_transfer.modeling.series_models import AutoModelForSeries
from hf_transfer.runs.export import export_folder
from tests import tiny
from tests.models.flowformer.tiny import tiny_config


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
    complete_adapter("lora", PreTrainedConfig())
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


def test_without_its_tools_onnx_is_refused_with_what_to_do(lora, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnxscript", None)
    with pytest.raises(ValueError, match="not installed here .*pip install 'hf-transferability\\[onnx\\]'"):
        export_folder(lora, "out", onnx=True)
    assert not Path("out").exists()


def test_onnx_files_of_an_adapter_and_of_a_flowformer_compute_what_the_models_do(lora):
    pixels = tiny.batch_of(tiny.digit_rows(0, 5), 5)["pixel_values"]
    adapted = PeftModel.from_pretrained(AutoModelForImageClassification.from_pretrained("vit"), "lora").eval()
    whole = AutoModelForImageClassification.from_pretrained("flow").eval()
    for folder, model in (("lora", adapted), ("flow", whole)):
        written = export_folder(folder, f"{folder}_onnx", onnx=True)
        assert {"config.json", "model.onnx", "preprocessor_config.json"} <= {path.name for path in written.iterdir()}
        found = ExportedModel.from_pretrained(written)(pixel_values=pixels)
        assert torch.allclose(found.logits, model(pixel_values=pixels).logits, atol=1e-4)


def test_a_file_that_computes_something_else_is_not_kept(lora, monkeypatch):
    right = OnnxExporter.export

    def of_another_model(exporter, model, rows, settings):
        other = copy.deepcopy(model)
        torch.nn.init.normal_(other.classifier.weight)
        return right(exporter, other, rows, settings)

    monkeypatch.setattr(OnnxExporter, "export", of_another_model)
    with pytest.raises(ValueError, match="no ONNX form of this ViTForImageClassification: its logits would differ"):
        export_folder("vit", "out", onnx=True)
    assert not Path("out").exists()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("make", "task"),
    [
        (lambda: tiny.bert(), "text-classification"),
        (lambda: BertForTokenClassification(tiny.bert().config), "token-classification"),
        (lambda: BertForQuestionAnswering(tiny.bert(2).config), "question-answering"),
        (
            lambda: AutoModelForCausalLM.from_config(
                tiny_config("text", is_causal=True, vocab_size=len(tiny.tokenizer()))
            ),
            "text-generation",
        ),
        (lambda: AutoModelForSeries.from_config(tiny_config("time_series")), "time-series-classification"),
    ],
    ids=["texts", "words", "questions", "generation", "series"],
)
def test_onnx_files_of_other_tasks(make, task, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    make().save_pretrained("model")
    tiny.tokenizer().save_pretrained("model")
    written = export_folder("model", "out", onnx=True, task=task)
    parts = {path.name for path in written.glob("*.onnx")}
    assert parts == ({"prefill.onnx", "decode.onnx"} if task == "text-generation" else {"model.onnx"})


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
