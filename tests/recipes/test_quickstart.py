"""The quickstart with a tiny architecture and few rows: what it refuses, how it goes on, what it publishes."""

from __future__ import annotations

import importlib.util
import json
import sys
from dataclasses import asdict, replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_transfer import TransferTrainer, push_folder
from hf_transfer.domain_adaptation.cdan import CDAN
from hf_transfer.domain_adaptation.mcc import MCC
from tests.runs.folders import digits

RECIPE = Path(__file__).parents[2] / "recipes" / "quickstart.py"
TINY = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
DECODER = {f"decoder_{name}": value for name, value in TINY.items()}
METHODS = {
    "TASK_METHODS": {"fine-tuning": {}, "LoRA": {}},
    "DOMAIN_METHODS": {"source only": {}, "CDAN + MCC": {"cdan": {"weight": 0.1}, "mcc": {"temperature": 2.0}}},
}


class Killed(BaseException):
    """The process is gone: nothing may catch this."""


def load_recipe():
    spec = importlib.util.spec_from_file_location("quickstart", RECIPE)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


quickstart = load_recipe()
SETTINGS = quickstart.Settings(
    seed=0, masked_image_steps=2, pretraining_steps=2, task_steps=2, domain_steps=4, labels_per_class=2, test_rows=40
)


@pytest.fixture(scope="module")
def small():
    """The recipe with real digits of one source for both domains, 120 and 160 of them, and a tiny architecture."""
    rows = {"mnist5k": range(120), "optical_digits": range(120, 280)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(quickstart, "load", lambda name: digits().select(rows[name]))
        patch.setattr(quickstart, "ARCHITECTURE", {**quickstart.ARCHITECTURE, **TINY, **DECODER})
        for name, methods in METHODS.items():
            patch.setattr(quickstart, name, methods)
        yield quickstart


@pytest.fixture(scope="module")
def straight(small, tmp_path_factory):
    """A run without a break: (the quickstart, its rows, what it found)."""
    made = small.Quickstart(tmp_path_factory.mktemp("straight"), SETTINGS, use_cpu=True)
    return made, *small.run(made)


def go(folder: Path) -> list:
    return quickstart.run(quickstart.Quickstart(folder, SETTINGS, use_cpu=True))[0]


def finished(folder: Path) -> dict[str, int]:
    """Every finished step's files and when they were written."""
    folders = [path.parent for path in folder.rglob("results.json") if path.parent.name != "published"]
    folders += [folder / name for name in ("zoo/random", "ranking", "flowformer-base") if (folder / name).is_dir()]
    files = [file for each in folders for file in each.iterdir()]
    return {str(file.relative_to(folder)): file.stat().st_mtime_ns for file in files}


def without_time(results: dict) -> dict:
    """Results but for the seconds and the path of the model they began with."""
    facts = {name: value for name, value in results["facts"].items() if name != "base_model"}
    settings = {name: value for name, value in facts["hyper_parameters"].items() if name != "training_seconds"}
    facts["hyper_parameters"] = settings
    return {name: value for name, value in results.items() if name != "seconds"} | {"facts": facts}


def die_in_training(patch: pytest.MonkeyPatch, name: str, at_step: int) -> None:
    ordinary = TransferTrainer.training_step

    def training_step(self, *args, **kwargs):
        if Path(self.args.output_dir).name == name and self.state.global_step == at_step:
            raise Killed
        return ordinary(self, *args, **kwargs)

    patch.setattr(TransferTrainer, "training_step", training_step)


def die_when_called(patch: pytest.MonkeyPatch, owner: object, name: str) -> None:
    def die(*args, **kwargs):
        raise Killed

    patch.setattr(owner, name, die)


# The whole run.


def test_every_step_has_a_row_and_a_folder(straight):
    made, rows, facts = straight
    assert [(row.step, row.method) for row in rows if row.step != "zoo"] == [
        *(("task", name) for name in METHODS["TASK_METHODS"]),
        *(("domain", name) for name in METHODS["DOMAIN_METHODS"]),
    ]
    assert {row.method for row in rows if row.step == "zoo"} == set(quickstart.ZOO) == set(facts["logme"])
    for row in rows:
        assert json.loads((made.output_dir / row.folder / "results.json").read_text()) == row.results
    assert not list((made.output_dir / "checkpoints").glob("*/*")), "a finished step leaves no checkpoints"


def test_the_published_model_is_what_was_measured(straight):
    made, rows, facts = straight
    (best,) = [row for row in rows if row.method == "CDAN + MCC"]
    assert facts["published"]["method"] == best.method
    assert facts["published"]["accuracy"] == best.results["accuracy"] == facts["published"]["reloaded"]
    assert made.accuracy_of(made.output_dir / best.folder) == best.results["accuracy"]


def test_the_card_is_the_run(straight):
    made, rows, facts = straight
    card = ModelCard.load(made.output_dir / "published" / "README.md")
    (result,) = card.data.eval_results
    assert (result.metric_type, result.metric_value) == ("accuracy", round(facts["published"]["accuracy"], 6))
    for name, score in facts["logme"].items():
        assert f"| {name} | {score:.4g} |" in card.text
    for row in rows:
        assert f"| {row.step} | {row.method} | {row.results['accuracy']:.3f} |" in card.text
    assert "(plots/results.png)" in card.text
    assert (made.output_dir / "published" / "plots" / "results.png").read_bytes().startswith(b"\x89PNG")
    assert all(method.__name__ in card.text and method.paper in card.text for method in (CDAN, MCC))


def test_the_summary_holds_the_table(straight):
    made, rows, facts = straight
    quickstart.report(made, rows, facts, seconds=1.0)
    summary = json.loads((made.output_dir / "quickstart.json").read_text())
    assert summary["settings"] == asdict(SETTINGS) and summary["published"] == facts["published"]
    assert [row["accuracy"] for row in summary["rows"]] == [row.results["accuracy"] for row in rows]


def test_a_killed_run_goes_on_without_doing_anything_twice(straight, tmp_path, monkeypatch):
    made, rows, _ = straight
    deaths = [
        lambda patch: die_in_training(patch, "digits", 1),
        lambda patch: die_when_called(patch, quickstart, "rank_models"),  # between two steps
        lambda patch: die_when_called(patch, quickstart, "save_run"),  # trained, not yet saved
        lambda patch: die_in_training(patch, "domain_CDAN_+_MCC", 3),  # with checkpoints
        lambda patch: die_when_called(patch, quickstart, "write_card"),  # half of a published folder
    ]
    before: dict[str, int] = {}
    for death in deaths:
        with pytest.MonkeyPatch.context() as patch:
            death(patch)
            with pytest.raises(Killed):
                go(tmp_path)
        after = finished(tmp_path)
        assert after.items() >= before.items(), "a finished step was touched"
        assert not (tmp_path / "published").exists()
        before = after
    assert "domain/source_only/model.safetensors" in before
    again = go(tmp_path)
    assert finished(tmp_path).items() >= before.items()
    assert [without_time(row.results) for row in again] == [without_time(row.results) for row in rows]
    first, second = (load_file(run / "published" / "model.safetensors") for run in (made.output_dir, tmp_path))
    assert all(torch.equal(first[name], second[name]) for name in first)
    die_in_training(monkeypatch, "digits", 0)
    die_when_called(monkeypatch, quickstart, "save_run")
    assert [row.results for row in go(tmp_path)] == [row.results for row in again], "a whole run has nothing to do"


def test_pushed_and_loaded_from_the_hub(straight, hub):
    made, _, facts = straight
    push_folder(made.output_dir / "published", "lab/flowformer-digits")
    assert hub.files("lab/flowformer-digits").keys() >= {"README.md", "model.safetensors", "plots/results.png"}
    rows = made.target["test"][:]
    with torch.no_grad():
        model = AutoModelForImageClassification.from_pretrained("lab/flowformer-digits").eval()
        answers = model(rows["pixel_values"]).logits.argmax(1)
    assert (answers == rows["labels"]).double().mean().item() == pytest.approx(facts["published"]["accuracy"])


# What it refuses before any work.


@pytest.fixture
def main(monkeypatch, tmp_path):
    """Runs the recipe with the given words in an empty directory; fails if any work begins."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(quickstart, "Quickstart", lambda *args: pytest.fail("work began"))

    def call(*words: str) -> str | int:
        monkeypatch.setattr(sys, "argv", ["quickstart.py", "--use_cpu", *words])
        with pytest.raises(SystemExit) as left:
            quickstart.main()
        return left.value.code

    return call


def begin(folder: Path, settings=None) -> Path:
    quickstart.open_output(folder, settings or quickstart.Settings(0), resume=False, overwrite=False)
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
    assert quickstart.begun_with(Path("used"))["seed"] == 0


def test_another_programs_folder_is_left_alone(main):
    Path("theirs").mkdir()
    Path("theirs/settings.json").write_text('{"theme": "dark"}')
    assert "`theirs` is not the output of an earlier quickstart" in main("--output_dir", "theirs", "--overwrite")
    assert "`theirs` was not begun with" in main("--output_dir", "theirs", "--resume")
    assert [file.name for file in Path("theirs").iterdir()] == ["settings.json"]


@pytest.mark.parametrize("folder", ["file", "file/inside", "/proc/none"])
def test_a_folder_that_cannot_be_written(main, folder):
    Path("file").write_text("text")
    message = main("--output_dir", folder)
    assert message.startswith("quickstart: ") and folder in message


# Its small parts.


def test_overwriting_starts_over(tmp_path):
    folder = begin(tmp_path / "out")
    (folder / "zoo").mkdir()
    quickstart.open_output(folder, quickstart.Settings(1), resume=False, overwrite=True)
    assert [file.name for file in folder.iterdir()] == ["settings.json"]
    assert quickstart.begun_with(folder)["seed"] == 1


def test_resuming_keeps_what_is_there(tmp_path):
    folder = begin(tmp_path / "out", SETTINGS)
    (folder / "zoo").mkdir()
    quickstart.open_output(folder, SETTINGS, resume=True, overwrite=False)
    assert (folder / "zoo").is_dir() and quickstart.begun_with(folder) == asdict(SETTINGS)
    with pytest.raises(ValueError, match="was not begun with"):
        quickstart.open_output(folder, replace(SETTINGS, task_steps=3), resume=True, overwrite=False)
    assert [file.name for file in tmp_path.iterdir()] == ["out"], "nothing is left beside the folder"


@pytest.mark.parametrize("text", [None, "", "{", "[]", '{"seed": 0}', '"seed"'])
def test_only_a_quickstart_begins_with_its_settings(tmp_path, text):
    if text is not None:
        (tmp_path / "settings.json").write_text(text)
    assert quickstart.begun_with(tmp_path) is None


@pytest.mark.parametrize(
    "method, name", [("CDAN + MCC, T 2.5", "cdan_mcc_t_2_5"), ("L2-SP + BSS", "l2_sp_bss"), ("MDD", "mdd")]
)
def test_slugs_are_folder_names(method, name):
    assert quickstart.slug(method) == name


def test_the_cells_of_a_row():
    results = {"accuracy": 0.98765, "seconds": 1.5, "trained_parameters": 12}
    assert quickstart.Row("task", "LoRA", "task/lora", {}, results).cells() == ["task", "LoRA", "0.988", "1.5", "12"]
