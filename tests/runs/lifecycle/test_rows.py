"""The rows of a plan: windows of a table are held out by time, labels of parts of rows are written as they were."""

import json
from pathlib import Path

import numpy as np
import pytest
from datasets import Dataset, load_from_disk
from transformers import AutoModelForImageClassification, AutoModelForKeypointDetection

from hf_transfer.data.emoji_scenes import POINTS
from hf_transfer.data.images import image_processor
from hf_transfer.runs.data import load_data
from hf_transfer.runs.lifecycle.lifecycle import Lifecycle
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.lifecycle.rows import prepare_rows, rows_arguments
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.models import new_config
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments
from tests.drawings import scene_options
from tests.tasks.test_keypoint_detection import RESNET

WINDOWS = {"context_length": 8, "prediction_length": 4}


def prepared(folder: Path, **data) -> tuple[dict, dict]:
    """What is written of a plan's rows, and the arguments of a training on them."""
    plan = read_plan({"data": data, "candidates": ["any"], "publish": {"output_dir": str(folder / "out")}})
    facts = prepare_rows(plan, Store(folder / "out"))
    return facts, rows_arguments(plan, facts, "test", with_target=False)


def test_windows_of_a_table_are_held_out_by_time(tmp_path):
    Dataset.from_dict({"a": np.arange(60.0)}).to_csv(tmp_path / "steps.csv", index=False)
    facts, arguments = prepared(tmp_path, train=str(tmp_path / "steps.csv"), forecasting=WINDOWS)
    assert facts["kind"] == "regression" and arguments["forecasting"] == WINDOWS
    told = {role: load_from_disk(str(Path(facts["folder"]) / role))["labels"][:] for role in facts["rows"]}
    assert {role: len(rows) for role, rows in told.items()} == {"train": 25, "validation": 9, "test": 9}
    for earlier, later in (("train", "validation"), ("validation", "test")):
        assert np.max(told[earlier]) + 1 == np.min(told[later]), "no step is told in two of them, and none is left out"


def test_rows_without_labels_are_trained_on_and_never_measured_on(tmp_path):
    """Else a standard error is of more rows than were measured."""
    for name, count in (("train", 60), ("test", 12), ("none", 4)):
        labels = [-100 if place % 3 == 0 or name == "none" else place % 2 for place in range(count)]
        texts = [f"this is row {place} of {name}" for place in range(count)]
        Dataset.from_dict({"text": texts, "label": labels}).to_csv(tmp_path / f"{name}.csv", index=False)
    train = str(tmp_path / "train.csv")
    facts, _ = prepared(tmp_path / "one", train=train)
    told = {role: load_from_disk(str(Path(facts["folder"]) / role))["label"][:] for role in facts["rows"]}
    assert facts["rows"] == {"train": 44, "validation": 8, "test": 8} and told["train"].count(-100) == 20
    assert -100 not in told["validation"] + told["test"]
    words = [["no", "yes", "-100"][place % 3] for place in range(60)]
    texts = [f"this is row {place}" for place in range(60)]
    Dataset.from_dict({"text": texts, "label": words}).to_csv(tmp_path / "words.csv", index=False)
    facts, arguments = prepared(tmp_path / "words", train=str(tmp_path / "words.csv"))
    assert facts["classes"] == ["no", "yes"] and facts["rows"]["test"] == 8
    assert load_data(DataArguments(arguments["dataset"])).class_names == ["no", "yes"]
    facts, _ = prepared(tmp_path / "two", train=train, test=str(tmp_path / "test.csv"))
    assert facts["rows"]["test"] == 8
    with pytest.raises(ValueError, match="the test rows have no label"):
        prepared(tmp_path / "three", train=train, test=str(tmp_path / "none.csv"))


def test_questions_and_answers_are_refused(tmp_path):
    row = {"question": "who?", "context": "it is me", "answers": {"text": ["me"], "answer_start": [6]}}
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps(row)] * 12))
    with pytest.raises(ValueError, match="a plan does not read rows of question-answering: `hf-transfer adapt`"):
        prepared(tmp_path, train=str(tmp_path / "rows.jsonl"))


def test_models_of_parts_of_rows_are_not_combined(tmp_path):
    (tmp_path / "rows.jsonl").write_text("\n".join([json.dumps({"tokens": ["a"], "ner_tags": ["O"]})] * 12))
    given = {"data": {"train": str(tmp_path / "rows.jsonl")}, "candidates": ["any"]}
    given |= {"combine": {"methods": ["b_tuning"]}, "publish": {"output_dir": str(tmp_path / "out")}}
    plan = read_plan(given)
    with pytest.raises(
        ValueError, match="`combine` draws on models of rows with one label each, and these are of tok"
    ):
        prepare_rows(plan, Store(tmp_path / "out"))


def test_tagged_words_are_held_out_at_random(tmp_path):
    rows = [{"tokens": ["a", "b", str(place)], "ner_tags": ["O", "B-PER", "O"]} for place in range(20)]
    (tmp_path / "rows.jsonl").write_text("\n".join(map(json.dumps, rows)))
    facts, arguments = prepared(tmp_path, train=str(tmp_path / "rows.jsonl"))
    assert facts["task"] == arguments["task"] == "token-classification" and "problem_type" not in arguments
    assert facts["rows"] == {"train": 12, "validation": 4, "test": 4}


@pytest.mark.parametrize("kind", ["masks", "boxes", "points"])
def test_labels_of_parts_of_pictures_are_written_as_they_were_read(tmp_path, kind):
    options = scene_options(tmp_path, rows=20)
    names = {"id2label": dict(enumerate(POINTS))} if kind == "points" else {}
    facts, arguments = prepared(tmp_path, train=f"emoji_{kind}", dataset_options=options, test_split="test", **names)
    assert (facts["rows"]["train"], facts["rows"]["validation"]) == (16, 4) and facts["rows"]["test"] > 4
    task = task_named(arguments["task"])
    assert arguments.get("id2label") == names.get("id2label")
    asked = DataArguments(dataset=f"emoji_{kind}", dataset_options=options, test_split="test", **names)
    before = load_data(asked, seed=0, task=task)
    after = load_data(DataArguments(dataset=arguments["dataset"], **names), seed=0, task=task)
    test = load_data(DataArguments(dataset=arguments["test_dataset"], **names), seed=0, task=task).train
    assert before.kind == after.kind
    assert len(test) == len(before.test)
    for one, other in zip(before.test.with_format(None)["labels"][:], test.with_format(None)["labels"][:]):
        if kind == "masks":
            assert np.array_equal(np.asarray(one), np.asarray(other))
        else:
            np.testing.assert_allclose(one, other, atol=1e-6)


def test_a_plan_chooses_a_model_of_key_points(tmp_path):
    """From a backbone without such a head to a model that is saved with the names of the points."""
    folder = tmp_path / "resnet"
    AutoModelForImageClassification.from_config(new_config(dict(RESNET))).save_pretrained(folder)
    image_processor(32, 3).save_pretrained(folder)
    options = {name: scene_options(tmp_path, name, rows=24) for name in ("google", "twitter")}
    data = {"train": "emoji_points", "dataset_options": options["google"], "id2label": dict(enumerate(POINTS))}
    data |= {"target": "emoji_points", "target_options": options["twitter"], "test": "emoji_points"}
    plan = {"data": data, "candidates": [str(folder)], "training": {"max_steps": 2, "report_to": []}}
    plan |= {"task": {"methods": ["fine_tuning"]}, "domain": {"methods": [{"dann": {"hidden_size": 4}}]}}
    outcome = Lifecycle({**plan, "publish": {"output_dir": str(tmp_path / "out")}}, quiet=True).run()
    assert [(row["stage"], row["metric"]) for row in outcome.table()] == [
        ("task", "pck_05"),
        *[("domain", "pck_05")] * 2,
    ]
    assert outcome.chosen.stage == "domain" and outcome.table()[1]["chosen_by"] == "dev"
    assert "standard error" not in outcome.verdict(), "points of one picture go together"
    model = AutoModelForKeypointDetection.from_pretrained(outcome.folder)
    assert list(model.config.id2label.values()) == list(POINTS)
    assert outcome.report.exists() and "Features" not in outcome.report.read_text()
