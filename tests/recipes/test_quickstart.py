"""The quickstart with a tiny architecture and few rows: what it refuses, how it goes on, what it publishes."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import torch
import yaml
from datasets import load_from_disk
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForImageClassification

from hf_transfer import TransferTrainer, push_folder
from hf_transfer.data.splits import scarce_split
from hf_transfer.domain_adaptation.cdan import CDAN
from hf_transfer.domain_adaptation.mcc import MCC
from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.runs.lifecycle import training
from hf_transfer.runs.lifecycle.lifecycle import PLAN_FILE
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.lifecycle.rows import prepare_rows
from hf_transfer.runs.lifecycle.store import Store
from tests.runs.folders import digits, save_digits

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.py"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = {f"decoder_{name}": value for name, value in TINY.items()}
ZOO = ("masked_images", "digits", "random")
TASK, DOMAIN = ("fine-tuning", "LoRA"), ("source only", "CDAN + MCC")


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


def load_recipe():
    spec = importlib.util.spec_from_file_location("quickstart", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


quickstart = load_recipe()


def small_plan(folder: Path) -> dict:
    """The plan with real digits of one source for both domains, 120 and 160 of them, and a tiny architecture."""
    plan = quickstart.read_yaml(quickstart.PLAN)
    plan["data"] |= {"labels_per_class": 2, "test_rows": 40}
    plan["data"] |= {"source": str(save_digits(folder / "source", 0, 120))}
    plan["data"] |= {"train": str(save_digits(folder / "target", 120, 280))}
    plan["pretrain"] = [
        {**one, "architecture": {**one["architecture"], **TINY, **DECODER}, "max_steps": min(2, one["max_steps"])}
        for one in plan["pretrain"]
        if one["name"] in ZOO
    ]
    for stage, kept, steps in (("task", TASK, 2), ("domain", DOMAIN, 4)):
        plan[stage]["methods"] = [one for one in plan[stage]["methods"] if "source_only" in one or one["name"] in kept]
        plan[stage]["training"]["max_steps"] = steps
    plan["domain"]["training"] |= {"eval_steps": 2, "save_steps": 2}
    return plan


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """The recipe with `small_plan`."""
    folder = tmp_path_factory.mktemp("small")
    (folder / "plan.yaml").write_text(yaml.safe_dump(small_plan(folder)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "PLAN", folder / "plan.yaml")
        yield quickstart


def go(folder: Path, *words: str) -> dict:
    """What the recipe says it found."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["quickstart.py", "--use_cpu", "--output_dir", str(folder), *words])
        quickstart.main()
    return json.loads((folder / "quickstart.json").read_text())


@pytest.fixture(scope="module")
def straight(small, tmp_path_factory):
    """A run without a break: its folder and what it found."""
    folder = tmp_path_factory.mktemp("straight")
    return folder, go(folder)


# The whole run.


@pytest.mark.slow
def test_every_step_has_a_row(straight):
    _, found = straight
    rows = [(row["step"], row["method"]) for row in found["rows"]]
    assert rows[3:] == [*(("task", name) for name in TASK), *(("domain", name) for name in DOMAIN)]
    assert {method for step, method in rows[:3] if step == "zoo"} == set(ZOO) == set(found["logme"])
    assert [method for _, method in rows[:3]] == list(found["logme"]), "best of the ranking first"
    assert found["ranked_last"] == rows[2][1] and -1 <= found["weighted_tau"] <= 1
    assert all(0 <= row["accuracy"] <= 1 and row["trained_parameters"] > 0 for row in found["rows"])
    assert {row["chosen_by"] for row in found["rows"]} == {None, "information_maximization"}


def test_labels_are_scarce_and_the_rest_of_the_target_has_none(small, tmp_path):
    plan = read_plan(quickstart.PLAN)
    facts = prepare_rows(plan, Store(tmp_path / "out"))
    rows = {path.name: load_from_disk(path) for path in Path(facts["folder"]).iterdir()}
    expected = scarce_split(digits().select(range(120, 280)), 2, 40, seed=0)
    assert {name: len(one) for name, one in rows.items()} == {"train": 20, "test": 40, "target": 100, "source": 120}
    assert [rows[name]["label"] for name in ("train", "test")] == [
        expected[name]["label"] for name in ("train", "test")
    ]
    assert rows["target"].column_names == ["image"]
    assert [one.tobytes() for one in rows["target"]["image"]] == [
        one.tobytes() for one in expected["unlabelled"]["image"]
    ]


@pytest.mark.slow
def test_the_published_model_is_what_was_measured(straight):
    _, found = straight
    (best,) = [row for row in found["rows"] if row["method"] == found["published"]["method"]]
    validators = [row["validator"] for row in found["rows"] if row["step"] == "domain"]
    assert best["validator"] == max(validators)
    assert found["published"]["accuracy"] == best["accuracy"] == found["published"]["reloaded"]


@pytest.mark.slow
def test_what_other_recipes_start_from_is_there(straight):
    folder, found = straight
    for name in ZOO:
        assert AutoModel.from_pretrained(folder / "zoo" / name).config.model_type == "flowformer"
    base = load_file(folder / "flowformer-base" / "model.safetensors")
    assert not [name for name in base if name.startswith("classifier")], "the encoder alone"
    best = next(iter(found["logme"]))
    assert ranked_models(str(folder / "ranking"), 1) == [str(folder / "zoo" / best)]


@pytest.mark.slow
def test_the_card_is_the_run(straight):
    folder, found = straight
    card = ModelCard.load(folder / "published" / "README.md")
    values = {one.metric_type: one.metric_value for one in card.data.eval_results}
    assert values["accuracy"] == pytest.approx(found["published"]["accuracy"], abs=1e-6)
    for row in found["rows"]:
        assert row["method"].replace(" only", "_only") in card.text
    if found["published"]["method"] == "CDAN + MCC":
        assert all(method.__name__ in card.text and method.paper in card.text for method in (CDAN, MCC))


@pytest.mark.slow
def test_a_killed_run_goes_on_and_ends_the_same(straight, tmp_path, monkeypatch):
    folder, found = straight
    ordinary = TransferTrainer.training_step

    def training_step(self, *args, **kwargs):
        if "domain_cdan_mcc" in self.args.output_dir and self.state.global_step == 3:
            raise Killed
        return ordinary(self, *args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(TransferTrainer, "training_step", training_step)
        with pytest.raises(Killed):
            go(tmp_path)
    assert not (tmp_path / "published").exists() and list(tmp_path.glob("domain_cdan_mcc*/checkpoint-2"))
    trained, real = [], training.trained
    monkeypatch.setattr(training, "trained", lambda one, *rest: trained.append(one.name) or real(one, *rest))
    again = go(tmp_path, "--resume")
    assert len(trained) == 1 and trained[0].startswith("domain: CDAN + MCC on")
    assert [row["accuracy"] for row in again["rows"]] == [row["accuracy"] for row in found["rows"]]
    first, second = (load_file(run / "published" / "model.safetensors") for run in (folder, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.slow
def test_pushed_and_loaded_from_the_hub(straight, hub):
    folder, _ = straight
    push_folder(folder / "published", "lab/flowformer-digits")
    assert hub.files("lab/flowformer-digits").keys() >= {"README.md", "model.safetensors"}
    model = AutoModelForImageClassification.from_pretrained("lab/flowformer-digits")
    stored = load_file(folder / "published" / "model.safetensors")
    assert all(torch.equal(stored[name], value) for name, value in model.state_dict().items())


# What it refuses before any work.


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Runs the recipe with the given words in an empty directory; fails if any work begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "Lifecycle", lambda *args: pytest.fail("work began"))

    def call(*words: str) -> str | int:
        monkeypatch.setattr(sys, "argv", ["quickstart.py", "--use_cpu", *words])
        with pytest.raises(SystemExit) as left:
            quickstart.main()
        return left.value.code

    return call


def begin(folder: Path, seed: int = 0) -> Path:
    folder.mkdir()
    (folder / PLAN_FILE).write_text(json.dumps({**quickstart.read_yaml(quickstart.PLAN), "budget": {"seed": seed}}))
    return folder


@pytest.mark.parametrize(
    "words, message",
    [
        (["--push_to_hub"], "--push_to_hub and --hub_model_id ORG/NAME go together"),
        (["--hub_model_id", "lab/x"], "--push_to_hub and --hub_model_id ORG/NAME go together"),
        (["--resume", "--overwrite"], "--resume keeps what is there and --overwrite replaces it: give one of them"),
        (["--seed", "one"], "invalid int value"),
        (["--sede", "1"], "unrecognized arguments"),
    ],
)
def test_arguments_that_do_not_fit(main, capsys, words, message):
    assert main(*words) == 2
    assert message in capsys.readouterr().err


def test_a_folder_in_use_is_refused(main):
    begin(Path("used"))
    assert "`used` is not empty: go on with --resume, start over with --overwrite" in main("--output_dir", "used")


def test_other_settings_are_not_mixed(main):
    begin(Path("used"))
    message = main("--output_dir", "used", "--resume", "--seed", "1")
    assert message.startswith("quickstart: `used` was not begun with {'seed': 1")
    assert quickstart.begun_with(Path("used")) == {"seed": 0}


def test_another_programs_folder_is_left_alone(main):
    Path("theirs").mkdir()
    Path("theirs/plan.json").write_text('{"theme": "dark"}')
    assert "`theirs` is not the output of an earlier quickstart" in main("--output_dir", "theirs", "--overwrite")
    assert "`theirs` was not begun with" in main("--output_dir", "theirs", "--resume")
    assert [file.name for file in Path("theirs").iterdir()] == ["plan.json"]


@pytest.mark.parametrize("folder", ["file", "file/inside", "/proc/none"])
def test_a_folder_that_cannot_be_written(main, folder):
    Path("file").write_text("text")
    message = main("--output_dir", folder)
    assert message.startswith("quickstart: ") and folder in message


# Its small parts.


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"budget": {"seed": 0}}', '"seed"'])
def test_only_a_quickstart_begins_with_its_plan(tmp_path, text):
    if text is not None:
        (tmp_path / PLAN_FILE).write_text(text)
    assert quickstart.begun_with(tmp_path) is None


def test_the_batch_is_the_same_however_many_processes_share_it(monkeypatch):
    arguments = quickstart.argparse.Namespace(seed=1, output_dir=Path("out"), hub_model_id=None, use_cpu=True)
    alone = quickstart.plan_of(arguments)
    monkeypatch.setattr(quickstart.PartialState(), "num_processes", 2)
    shared = quickstart.plan_of(arguments)
    for one, two in ((alone["pretrain"][0], shared["pretrain"][0]), (alone["task"], shared["task"])):
        one, two = one.get("training", one), two.get("training", two)
        assert one[quickstart.BATCH] == 2 * two[quickstart.BATCH]
    assert alone["budget"] == {"seed": 1} and alone["publish"]["output_dir"] == "out"
