"""`hf-transfer compare`, `card`, `pull` and `export` as a user types them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from huggingface_hub import ModelCard
from transformers import AutoModelForImageClassification

from hf_transfer.hub import MetricFact, RunFacts, push_folder, write_card
from tests import tiny


def save_run(folder: Path, seed: int, accuracy: float) -> None:
    (folder / "model").mkdir(parents=True)
    metrics = [MetricFact("accuracy", accuracy, "rows.csv")]
    facts = RunFacts("m", "text-classification", "AutoModel", metrics=metrics, hyper_parameters={"seed": seed})
    write_card(folder / "model", facts)
    (folder / "model" / "results.json").write_text(json.dumps({"accuracy": accuracy}))


def test_compare_prints_a_table_and_writes_it(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_run(Path("a"), 0, 0.5)
    save_run(Path("b"), 1, 0.7)
    code, out, error = run("compare", "a", "b", "--by", "accuracy", "--output", "table.md")
    assert "hf-transfer push a/model ORG/NAME" in error
    assert "hf-transfer compare a b --by accuracy" in run("compare", "a", "b")[2]
    assert code == 0 and "fine-tuning  0, 1   0.6000 ± 0.1414" in out
    assert "| fine-tuning | 0, 1 | 0.6000 ± 0.1414 |" in Path("table.md").read_text()
    assert json.loads(run("compare", "a", "b", "--json")[1])[0]["mean"] == {"accuracy": pytest.approx(0.6)}
    code, _, error = run("compare", "a", "--output", "table.md")
    assert code == 2 and "`table.md` exists" in error
    code, _, error = run("compare", "a", "--output", "table.pdf")
    assert code == 2 and "['.csv', '.json', '.md']" in error


def test_card_is_written_again_with_what_is_given(run, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    save_run(Path("a"), 0, 0.5)
    code, out, error = run("card", "a/model", "--license", "apache-2.0", "--summary", "Of reviews.")
    assert code == 0 and "hf-transfer push a/model ORG/NAME" in error and "0.5000" in out
    card = ModelCard.load("a/model/README.md")
    assert card.data.license == "apache-2.0" and "Of reviews." in card.text
    assert json.loads(run("card", "a/model", "--json")[1])["license"] == "apache-2.0", "what was given is kept"


def test_card_of_a_folder_that_no_run_saved_and_of_one_with_a_card_by_hand(run, here, tmp_path):
    AutoModelForImageClassification.from_pretrained("vit").save_pretrained("mine")
    assert run("card", "mine")[0] == 0
    text = Path("mine/README.md").read_text()
    assert 'AutoModelForImageClassification.from_pretrained("mine")' in text and "image-classification" in text
    Path("mine/README.md").write_text("# By hand\n")
    code, _, error = run("card", "mine")
    assert code == 2 and "written by hand" in error and Path("mine/README.md").read_text() == "# By hand\n"
    assert run("card", "mine", "--overwrite")[0] == 0 and "By hand" not in Path("mine/README.md").read_text()


def test_card_of_an_adapter_that_no_run_saved(run, here):
    tiny.with_lora(AutoModelForImageClassification.from_pretrained("vit")).save_pretrained("lora")
    assert run("card", "lora", "--overwrite")[0] == 0
    text = Path("lora/README.md").read_text()
    assert "from peft import AutoPeftModel" in text and "Starts from `vit`" in text


def test_pull_and_export(run, here, hub):
    AutoModelForImageClassification.from_pretrained("vit").save_pretrained("mine")
    assert run("card", "mine")[0] == 0
    push_folder("mine", "lab/mine")
    code, out, _ = run("pull", "lab/mine", "--output-dir", "pulled")
    assert code == 0 and "model.safetensors" in out and "Saved: pulled." in out
    assert not Path("pulled/model.safetensors").is_symlink()
    AutoModelForImageClassification.from_pretrained("pulled")
    assert run("pull", "lab/mine", "--output-dir", "pulled")[0] == 2
    folder = json.loads(run("pull", "lab/mine", "--json")[1])["folder"]
    assert (Path(folder) / "config.json").is_file()
    tiny.with_lora(AutoModelForImageClassification.from_pretrained("vit")).save_pretrained("lora")
    code, out, error = run("export", "lora", "--output-dir", "merged")
    assert code == 0 and "hf-transfer push merged ORG/NAME" in error
    code, _, error = run("export", "vit", "--output-dir", "x")
    assert code == 2 and "ordinary model folder" in error
