"""Candidates that a plan pre-trains: what it reads of them, what they read, and that they are made once."""

from __future__ import annotations

import copy
import json
import re
from pathlib import Path

import pytest
import torch
from datasets import load_from_disk
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForMaskedImageModeling

from hf_transfer import Lifecycle
from hf_transfer.runs.lifecycle.candidates import described
from hf_transfer.runs.lifecycle.encoders import encoder_of
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.rows import prepare_rows
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.lifecycle.zoo import pretrain, steps_of
from tests.runs.folders import ARCHITECTURE

DECODER = {
    f"decoder_{name}": ARCHITECTURE[name] for name in ARCHITECTURE if name.endswith(("size", "layers", "heads"))
}
DECODER = {name: value for name, value in DECODER.items() if "image" not in name and "patch" not in name}
SHORT = {"max_steps": 2, "per_device_train_batch_size": 8}
SUPERVISED = {"name": "digit reader", "architecture": ARCHITECTURE, **SHORT}
MASKED = {
    "name": "masked",
    "rows": "target",
    "task": "masked-image-modeling",
    "architecture": {**ARCHITECTURE, **DECODER, "mask_ratio": 0.5},
    **SHORT,
}
PLAN = {
    "data": {"train": "digits", "target": "more_digits", "test_rows": 20, "validation_rows": 0},
    "pretrain": [SUPERVISED, MASKED],
    "rank": {"score": "logme", "layers": "last"},
    "domain": {"methods": ["mcc"], "validator": "entropy", "guard": False},
    "training": {**SHORT, "use_cpu": True},
    "publish": {"output_dir": "out"},
}


def changed(*entries, **sections):
    plan = {**copy.deepcopy(PLAN), **sections}
    return {**plan, "pretrain": list(entries)} if entries else plan


@pytest.mark.slow
def test_what_is_pre_trained_is_ranked_and_the_best_is_adapted(here, trained):
    outcome = Lifecycle(PLAN, quiet=True).run()
    made = ["pretrain: digit reader", "pretrain: masked"]
    assert trained[:2] == made and len(trained) == 4
    facts = json.loads(Path("out/report.json").read_text())
    assert {row["model"] for row in facts["ranking"]["rows"]} == {"digit reader", "masked"}
    assert [row["model"] for row in facts["pretrained"]] == ["digit reader", "masked"]
    assert all(row["loss"] > 0 and row["seconds"] > 0 for row in facts["pretrained"])
    assert facts["cost"]["trainings"] == 4 and set(made) < set(facts["curves"])
    assert "Pre-trained by this plan" in Path("out/report.html").read_text()
    assert "## Pre-trained" in Path("out/report.md").read_text()
    best = facts["ranking"]["rows"][0]["model"]
    assert {row["model"] for row in outcome.table()} == {best}
    (masked,) = Path("out").glob("pretrain_masked-*/model")
    assert not list(Path("out").glob("pretrain_*/checkpoint-*"))
    card = (masked / "README.md").read_text()
    assert "more_digits" in card and "data-" not in card, "the card names the user's data"
    rows = {path.name: len(load_from_disk(path)) for path in next(Path("out").glob("data-*")).iterdir()}
    assert rows == {"train": 80, "target": 30, "test": 20}, "nothing is held out to choose by"

    assert Lifecycle(PLAN, quiet=True).run().metrics == outcome.metrics and len(trained) == 4
    Lifecycle(changed(SUPERVISED, {**MASKED, "max_steps": 3}), quiet=True).run()
    assert trained[4] == "pretrain: masked" and "pretrain: digit reader" not in trained[4:]


def test_a_model_is_pre_trained_once_and_is_a_candidate(here, trained):
    for _ in range(2):
        plan, store = read_plan(changed(MASKED)), Store(Path("out"))
        progress = Progress(store.root, quiet=True)
        (candidate,), (record,) = pretrain(plan, store, progress, prepare_rows(plan, store))
        assert trained == ["pretrain: masked"]
        assert candidate["shown"] == record["shown"] == "masked" and record["test"] == {}
        assert candidate["bytes"] == (Path(candidate["name"]) / "model.safetensors").stat().st_size
        assert sorted(path.name for path in Path("out").glob("pretrain_*/*")) == ["model"], "no checkpoint is left"
    assert AutoModelForMaskedImageModeling.from_pretrained(candidate["name"]).config.mask_ratio == 0.5


def test_an_entry_of_no_steps_is_random_weights_and_an_encoder_has_no_head(here):
    plan, store = read_plan(changed({**SUPERVISED, "max_steps": 0}, budget={"seed": 3})), Store(Path("out"))
    progress = Progress(store.root, quiet=True)
    rows = prepare_rows(plan, store)
    for _ in range(2):
        (candidate,), (record,) = pretrain(plan, store, progress, rows)
    assert record["losses"] == [] and candidate["shown"] == "digit reader" and progress.done_before
    model = AutoModel.from_pretrained(candidate["name"])
    torch.manual_seed(3)
    drawn = AutoModel.from_config(model.config).state_dict()
    assert all(torch.equal(value, drawn[name]) for name, value in model.state_dict().items())
    train = load_from_disk(str(Path(rows["folder"]) / "train"))
    encoder = encoder_of(described("vit", store), train, False, store, progress)
    stored = load_file(Path(encoder["name"]) / "model.safetensors")
    assert stored and not [name for name in stored if "classifier" in name] and encoder["shown"] == "vit"
    assert (Path(encoder["name"]) / "preprocessor_config.json").is_file()
    assert encoder_of(described("vit", store), train, False, store, progress) == encoder


@pytest.mark.slow
def test_a_dry_run_counts_pre_training_and_measures_on_what_it_starts_from(here):
    entries = SUPERVISED, {**MASKED, "max_steps": 400}
    estimate = Lifecycle(changed(*entries)).dry_run()
    cost = {one.model: one for one in estimate.work if one.stage == "pretrain"}
    assert cost["masked"].search > 10 * cost["digit reader"].search > 0
    words = estimate.in_words()
    assert re.search(r"digit reader +\d+\.\d MB +pre-trained by this plan", words)
    assert "measured on digit reader" in words and not Path("out").exists()
    assert estimate.minutes > cost["masked"].search + cost["digit reader"].search
    with pytest.raises(ValueError, match="pre-training alone needs about .* minutes of 0.001"):
        Lifecycle(changed(*entries, budget={"minutes": 0.001})).dry_run()


def test_what_cannot_be_is_told_before_any_training(here, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    wrong = {**SUPERVISED, "objectives": {"moco": {}}, "task": "masked-image-modeling"}
    for plan, message in (
        (changed(SUPERVISED, wrong), "pretrain: digit reader|a name of its own"),
        (changed({**SUPERVISED, "dataset": "more_digits"}), "the test rows are part of: with `rows: train`"),
        (changed({**SUPERVISED, "dataset": "nowhere"}), "nowhere"),
        (changed(domain={"methods": ["stoch_norm"], "guard": False}), "stoch_norm on digit reader.*no batch norm"),
    ):
        with pytest.raises((ValueError, OSError), match=message):
            Lifecycle(plan, quiet=True).run()


@pytest.mark.parametrize(
    ("entries", "message"),
    [
        ([], "should be a list of recipes or mappings"),
        ({"name": "x"}, "should be a list"),
        ([3], "paths of recipes and mappings"),
        (["nowhere.yaml"], "no file `nowhere.yaml`"),
        ([{**SUPERVISED, "max_stps": 3}], "no key `max_stps` \\(did you mean `max_steps`"),
        ([{**SUPERVISED, "output_dir": "x"}], "no key `output_dir`"),
        ([SUPERVISED, SUPERVISED], "a name of its own"),
        ([{**SUPERVISED, "rows": "test"}], "`rows` of `digit reader` should be one of"),
        ([{**SUPERVISED, "rows": "train", "dataset": "digits"}], "give one of them"),
        ([{**SUPERVISED, "architecture": {"model_type": "flowforme"}, "max_steps": "x"}], "`max_steps`"),
        ([{"name": "x", "max_steps": 2}], "`pretrain`, `x`: give either `model`"),
        ([{**SUPERVISED, "objectives": {"moco": {"queu": 1}}}], "`pretrain`, `digit reader`.*queu"),
        ([{**SUPERVISED, "name": "digits"}], "`digits` exists already"),
        ([{**SUPERVISED, "rows": "source"}], "reads the source, and the plan has none"),
        ([{"name": "x", "model": "vit", "max_steps": 0}], "`x` takes no step, so it has random weights"),
    ],
)
def test_a_mistake_is_one_sentence(entries, message):
    with pytest.raises((ValueError, TypeError, FileNotFoundError), match=message):
        read_plan({**PLAN, "candidates": ["digits"], "pretrain": entries})


def test_a_recipe_is_an_entry_and_its_keys_can_be_changed(tmp_path):
    recipe = tmp_path / "mine.yaml"
    recipe.write_text(json.dumps({**SHORT, "dataset": "mnist5k", "output_dir": "x", "save_strategy": "no", "seed": 3}))
    plan = changed(str(recipe), {"recipe": str(recipe), "name": "other", "rows": "target", "max_steps": 9})
    with pytest.raises(ValueError, match="give either `model`"):
        read_plan(plan)
    recipe.write_text(json.dumps({**json.loads(recipe.read_text()), "architecture": ARCHITECTURE}))
    mine, other = read_plan(plan).pretrain
    assert (mine.name, mine.rows, mine.arguments["dataset"], mine.arguments["seed"]) == ("mine", None, "mnist5k", 3)
    assert mine.arguments["save_strategy"] == "steps" and "output_dir" not in mine.arguments
    assert (other.rows, other.arguments["max_steps"]) == ("target", 9) and "dataset" not in other.arguments
    with pytest.raises(ValueError, match="the plan has none"):
        read_plan({**plan, "data": {"train": "digits"}, "task": {"methods": ["lora"]}, "domain": None})
    with pytest.raises(ValueError, match="holds out no rows, by which `task`"):
        read_plan(changed(task={"methods": ["fine_tuning"], "search": {"learning_rate": [0.1, 0.01]}}))
    assert read_plan(changed(task={"methods": ["fine_tuning", "lora"]})).task, "before `domain` nothing is chosen"


def test_steps_are_those_given_or_of_the_epochs():
    assert steps_of({"max_steps": 7}, None) == 7
    assert steps_of({}, 80) == 30  # 3 epochs of 8 rows, as transformers has it
    assert steps_of({"num_train_epochs": 1, "per_device_train_batch_size": 16}, 81) == 6
