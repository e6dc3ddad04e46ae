"""As a new user: a csv file, three candidates on the Hub, one command, and a model that loads by name elsewhere."""

from __future__ import annotations

import csv
import subprocess
import sys
from pathlib import Path

import pytest

from tests.runs.folders import save_text_model
from tests.tiny import SENTENCES, llama

ROOT = Path(__file__).parents[3]
PLAN = """
data: {train: reviews.csv, text_column: review, label_column: book}
candidates: [lab/gpt2, {search: be, limit: 5}, lab/llama]
rank: {top: 2}
task: {methods: [fine_tuning]}
training: {max_steps: 4, per_device_train_batch_size: 8, use_cpu: true}
publish: {output_dir: out, hub_model_id: lab/books, private: true}
"""
ELSEWHERE = """
from transformers import pipeline
print(pipeline("text-classification", model="lab/books", device="cpu")("It was Miss Taylor's loss.")[0]["label"])
"""


@pytest.mark.slow
def test_one_command_from_a_csv_file_to_a_model_that_loads_by_name(here, hub, tmp_path):
    for name in ("bert", "gpt2"):
        hub.add_folder(f"lab/{name}", here / name)
    hub.add_folder("lab/llama", save_text_model(tmp_path / "saved", llama()))
    with Path("reviews.csv").open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["number", "review", "book"])
        names = ["moby dick", "emma", "alice"]
        writer.writerows([place, text, names[book]] for place, (text, book) in enumerate(SENTENCES))
    Path("plan.yaml").write_text(PLAN)

    def run(home: str, *words: str) -> subprocess.CompletedProcess:
        environment = {**hub.environment(tmp_path / home, hub.token), "PYTHONPATH": str(ROOT)}
        return subprocess.run([sys.executable, *words], capture_output=True, text=True, env=environment, timeout=600)

    dry = run("first", "-m", "hf_transfer.cli", "run", "plan.yaml", "--dry-run")
    assert dry.returncode == 0 and "on the Hub" in dry.stdout and not Path("out").exists(), dry.stderr
    done = run("first", "-m", "hf_transfer.cli", "run", "plan.yaml")
    assert done.returncode == 0, done.stderr
    assert "Models:" in done.stderr and " of 3" in done.stderr and "Published: " in done.stderr
    assert "Warning" not in done.stderr, "nothing that the user cannot act on"
    assert {"README.md", "config.json", "model.safetensors", "tokenizer.json"} <= set(hub.files("lab/books"))
    loaded = run("second", "-c", ELSEWHERE)
    assert loaded.stdout.strip() in ("moby dick", "emma", "alice"), loaded.stderr
