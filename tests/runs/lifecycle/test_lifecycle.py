"""A plan on real sentences, from a csv file to a chosen model with its report; again, and changed."""

from __future__ import annotations

import copy
import json
import shutil
import sys
from pathlib import Path

import pytest
from datasets import load_from_disk
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer import Lifecycle
from hf_transfer.cli import app as cli
from hf_transfer.hub import retry
from hf_transfer.runs.lifecycle.store import Store
from tests.runs.folders import ARCHITECTURE

PLAN = {
    "data": {"train": "books.csv"},
    "candidates": ["bert", "gpt2"],
    "rank": {"score": "logme", "layers": "last"},
    "task": {"methods": ["fine_tuning"], "search": {"learning_rate": [0.01, 0.001]}},
    "training": {"max_steps": 2, "per_device_train_batch_size": 8, "use_cpu": True},
    "publish": {"output_dir": "out"},
}


def changed(**sections):
    return {**copy.deepcopy(PLAN), **sections}


class Killed(BaseException):
    """What no handler of errors catches."""


@pytest.fixture(scope="module")
def finished(workshop, tmp_path_factory):
    """The folder in which PLAN is carried out, its outcome, and the pieces: it is stopped after each, and goes on."""
    folder, kept, ordinary = tmp_path_factory.mktemp("lifecycle"), [], Store.keep
    for item in workshop.iterdir():
        (folder / item.name).symlink_to(item)

    def keep(self, piece, *rest):
        ordinary(self, piece, *rest)
        kept.append(piece)
        raise Killed

    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        patch.setattr(Store, "keep", keep)
        for _ in range(20):
            try:
                return folder, Lifecycle(PLAN, quiet=True).run(), kept
            except Killed:
                continue
    raise AssertionError(f"the plan does not end: {kept}")


@pytest.fixture
def folder(finished, tmp_path, monkeypatch):
    """A copy of the finished folder, which is the working directory."""
    shutil.copytree(finished[0], tmp_path / "copy", symlinks=True)
    monkeypatch.chdir(tmp_path / "copy")
    return tmp_path / "copy"


def test_a_plan_ends_with_a_chosen_model_and_its_report(finished):
    folder, outcome, _ = finished
    out = folder / "out"
    model = AutoModelForSequenceClassification.from_pretrained(out / "model")
    assert set(model.config.id2label.values()) <= {"0", "1", "2", 0, 1, 2}
    card = (out / "model" / "README.md").read_text()
    assert "How this model was chosen" in card and "books.csv (held out)" in card and "hf-transfer run" in card
    assert "data-" not in card, "the card names the user's file, not a folder of the lifecycle"
    facts = json.loads((out / "report.json").read_text())
    assert facts["verdict"] == outcome.verdict() and "test rows" in facts["verdict"]
    assert facts["data"]["rows"] == {"train": 16, "validation": 4, "test": 4}
    assert [trial["steps"] for trial in facts["trials"]] == [1, 1]
    best = max(facts["trials"], key=lambda trial: trial["score"])
    assert facts["entries"][0]["setting"] == best["setting"]
    assert sum(map(sum, facts["confusion"]["counts"])) == 4
    assert len(facts["embeddings"]["before"]) == len(facts["embeddings"]["groups"]) == 4
    assert {"bert", "gpt2"} == {row["model"] for row in facts["ranking"]["rows"]}
    page = (out / "report.html").read_text()
    assert "<svg" in page and facts["verdict"] in page and "http" not in page.replace("https://huggingface.co", "")
    told = (out / "report.md").read_text()
    assert "| stage | model |" in told and "| class | precision | recall | f1 | rows |" in told
    for name, figures in json.loads((out / "report.json").read_text())["per_class"].items():
        assert f"| {name} | {figures['precision']:.4f} |" in told and f">{figures['recall']:.4f}<" in page
    assert not list(out.glob("*/checkpoint-*")), "checkpoints of finished trainings are removed"
    assert len(list(out.glob("task_*"))) == 1, "models of trials are removed"


def test_the_same_plan_does_nothing_again_and_a_changed_one_what_the_change_touches(folder, trained, capsys):
    before = {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.safetensors")}
    assert Lifecycle(PLAN).run().metrics and trained == []
    assert {path: path.stat().st_mtime_ns for path in Path("out").rglob("*.safetensors")} == before
    learned = Lifecycle(PLAN, quiet=True).run().chosen.setting["learning_rate"]
    training = {**PLAN["training"], "learning_rate": learned, "weight_decay": 0.5}
    Lifecycle(changed(training=training, task={"methods": ["fine_tuning"]})).run()
    assert len(trained) == 1, "neither data nor ranking"
    assert "again, as settings.weight_decay 0.01 -> 0.5\n" in capsys.readouterr().err


def test_what_is_chosen_never_reads_the_test_rows(folder, monkeypatch):
    """Other test rows change no choice and no weight; the trials do not know them."""
    place = json.loads(next(Path("out/state").glob("data-*.json")).read_text())["result"]
    records = [json.loads(path.read_text()) for path in Path("out/state").glob("task_*_steps-*.json")]
    assert len(records) == 2
    assert all("test" not in record["depends"]["rows"] for record in records)
    assert place["fingerprints"]["test"] not in json.dumps(records)


def test_a_kill_between_model_and_record_trains_nothing_again(folder, monkeypatch):
    (record,) = Path("out/state").glob("task_fine_tuning_*_seed_0-*.json")
    kept = json.loads(record.read_text())["result"]
    record.unlink()
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    Lifecycle(PLAN, quiet=True).run()
    again = json.loads(record.read_text())["result"]
    assert again == kept


def test_an_interruption_after_any_piece_does_nothing_twice(finished):
    kept = finished[2]
    assert len(kept) == len(set(kept)) >= 8
    assert sum(piece.startswith("task: ") for piece in kept) == 3


def test_the_command_line_gives_a_plan_or_changes_one(folder, monkeypatch, capsys, trained):
    (folder / "plan.yaml").write_text(json.dumps(PLAN))

    def run(*words):
        monkeypatch.setattr(sys, "argv", ["hf-transfer", "run", *words])
        try:
            cli.main()
        except SystemExit as left:
            return left.code, *capsys.readouterr()
        return 0, *capsys.readouterr()

    code, out, _ = run("plan.yaml", "--resume", "--json")
    assert code in (0, None) and json.loads(out)["model"] == "out/model" and trained == []
    code, out, _ = run("plan.yaml")
    assert out.splitlines()[0].startswith("stage") and "Report: out/report.html" in out
    code, _, err = run("plan.yaml", "--budget.seeds", "none")
    assert code == 2 and "`budget.seeds` should be a whole number" in err
    code, _, err = run("plan.yaml", "--seeds", "2")
    assert code == 2 and "is given as `--section.key value`" in err
    code, _, err = run("--train", "nowhere.csv", "--model", "bert", "--data.max_length", "8")
    assert code == 2 and "nowhere.csv" in err and not Path("lifecycle_nowhere").exists()
    code, _, err = run("plan.yaml", "--resume", "--overwrite")
    assert code == 2 and "give one of them" in err


def test_a_fault_of_the_hub_is_one_line_and_the_same_command_goes_on(here, hub, monkeypatch, trained):
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)
    commits = {f"lab/{name}": hub.add_folder(f"lab/{name}", here / name).sha for name in ("bert", "gpt2")}
    shutil.rmtree("hub", ignore_errors=True)
    plan = changed(candidates=["lab/bert", "lab/gpt2"], combine={"methods": ["b_tuning"], "top": 2})
    del plan["task"]
    plan["publish"] = {"output_dir": "out", "hub_model_id": "lab/books", "private": True}
    hub.fail(503, path="/api/models/lab/gpt2", times=4)
    with pytest.raises(OSError, match="the Hub is in trouble"):
        Lifecycle(plan, quiet=True).run()
    hub.fail(429, path="/api/models/lab/books/commit", times=4)
    with pytest.raises(OSError, match="too many requests.*the same command goes on with the push"):
        Lifecycle(plan, quiet=True).run()
    assert len(trained) == 1 and Path("out/report.html").is_file()
    results = json.loads(Path("out/model/results.json").read_text())
    assert results["base_model_revision"] == commits[results["base_model"]]
    outcome = Lifecycle(plan, quiet=True).run()
    assert len(trained) == 1 and outcome.published.endswith("lab/books")
    files = hub.files("lab/books")
    assert {"config.json", "model.safetensors", "README.md"} <= set(files)
    assert b'from_pretrained("lab/books")' in files["README.md"]
    assert AutoModelForSequenceClassification.from_pretrained("lab/books").config.num_labels == 3
    sent = len([one for one in hub.requests if "/commit/" in one["path"]])
    assert Lifecycle(plan, quiet=True).run().published == outcome.published
    assert len([one for one in hub.requests if "/commit/" in one["path"]]) == sent, "nothing is published twice"


def test_a_target_is_adapted_to_from_random_weights_and_compared_with_source_only(here):
    """The validator chooses, and nobody reads a label of the target."""
    plan = {
        "data": {"train": "digits", "target": "more_digits", "test_rows": 20},
        "candidates": [{"architecture": ARCHITECTURE}],
        "domain": {"methods": ["mcc"], "validator": "entropy"},
        "training": {**PLAN["training"], "learning_rate": 0.01},
        "publish": {"output_dir": "out"},
    }
    outcome = Lifecycle(plan, quiet=True).run()
    rows = outcome.table()
    assert [row["method"] for row in rows] == ["source_only", "mcc"] and rows[1]["kept"] in ("adapted", "source only")
    assert {row["chosen_by"] for row in rows} == {"entropy"}
    scores = [row["validation"]["mean"] for row in rows]
    assert rows[scores.index(max(scores))]["chosen"] and "without any target label" in outcome.verdict()
    assert "labels" not in load_from_disk(next(Path("out").glob("data-*")) / "target").column_names
    facts = json.loads(Path("out/report.json").read_text())
    assert set(facts["embeddings"]["groups"]) == {"source", "target"} and "before" not in facts["embeddings"]
    assert AutoModelForImageClassification.from_pretrained(outcome.folder).config.num_labels == 10
