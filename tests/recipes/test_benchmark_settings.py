"""Every cell of the benchmarks has settings that a run accepts: names, types, objectives, and nothing ignored."""

import json
import re
from functools import partial
from pathlib import Path

import pytest

from tests.recipes.conftest import BENCHMARKS

pytestmark = pytest.mark.usefixtures("among_the_benchmarks")


def check(settings: dict) -> None:
    """What a run checks of its arguments before it reads anything."""
    from hf_transfer.runs.arguments import parse_arguments

    check_experiment(parse_arguments([], **settings))


def check_experiment(experiment) -> None:
    from hf_transfer.runs.ignored import check_nothing_is_ignored
    from hf_transfer.training.objectives import make_objectives

    assert experiment.model.task is not None
    check_nothing_is_ignored(experiment)
    make_objectives(experiment.config.objectives)


def test_every_cell_of_domain_adaptation(monkeypatch, tmp_path):
    import domain_adaptation as benchmark

    monkeypatch.setattr(benchmark, "data_folder", lambda data, name, folder: name)
    monkeypatch.setattr(benchmark, "candidate", lambda name, folder: Path(name))
    cells, seen = [], set()  # every pair, and every candidate of every method on the first pair that it fits
    for pair in benchmark.PAIRS:
        for method in filter(partial(benchmark.fits, pair), benchmark.METHODS):
            for place, settings in enumerate(benchmark.candidates_of(pair, method)):
                if str(settings) not in seen or pair not in {cell[0] for cell in cells}:
                    cells.append((pair, method, place, 0))
                seen.add(str(settings))
    assert {cell[0] for cell in cells} == set(benchmark.PAIRS) and {cell[1] for cell in cells} == set(
        benchmark.METHODS
    )
    for cell in cells:
        try:
            check(benchmark.settings_of(cell, tmp_path, steps=None))
        except (ValueError, TypeError) as error:
            raise AssertionError(f"{cell}: {error}") from error


def test_recipes_that_are_rows_of_domain_adaptation_have_its_settings(monkeypatch, tmp_path):
    """Their figures are those of the table, so that they have to train what was trained there."""
    import domain_adaptation as benchmark
    import recipe_figures

    from hf_transfer.runs.arguments import parse_arguments

    monkeypatch.setattr(benchmark, "data_folder", lambda data, name, folder: name)
    renamed = {"rotated_mnist_test": None, "optical_below_five": "optical_digits", "mnist_below_eight": "mnist5k"}
    renamed |= {"optical_with_unknown": "optical_digits"}
    beside = {"output_dir", "overwrite", "diagnostics", "disable_tqdm", "use_cpu", "logging_dir", "logging_steps"}
    beside |= {"dataloader_pin_memory", "distributed_state"}  # follow from use_cpu
    beside |= {"dataset_options", "target_options", "target_split", "test_split", "run_name"}
    files = recipe_figures.recipes_of(["domain_adaptation"], ())
    table = benchmark.stored_pairs(BENCHMARKS / "results")
    rows = {name: recipe_figures.row_of(name) for name in files if recipe_figures.row_of(name) is not None}
    assert len(rows) > 35 and set(recipe_figures.runs_of_rows(files)) == set(rows)
    for name, (pair, method) in rows.items():
        row = (
            benchmark.settings_of((pair, "source_only", 0, 0), tmp_path, steps=None) | table[pair][method]["settings"]
        )
        for key in ("dataset", "target_dataset", "test_dataset"):
            if row.get(key) in renamed:
                row[key] = renamed[row[key]]
        found, expected = parse_arguments([str(files[name])]), parse_arguments([], **row)
        for group, other in zip(found, expected, strict=True):
            differing = {
                key for key, value in vars(group).items() if (value or None) != (vars(other)[key] or None)
            } - beside
            assert not {key for key in differing if not key.startswith("_")}, (name, differing)


def test_a_recipes_line_is_renewed_and_nothing_else(tmp_path):
    import recipe_figures

    file = tmp_path / "recipe.yaml"
    file.write_text("# accelerate launch recipes/adapt.py x\n# What it is.\n# Measured, by hand: 3.\nbase: b.yaml\n")
    runs = {0: {"seconds": 60.0, "metrics": {"accuracy": 0.5, "loss": 1.0}}}
    recipe_figures.write_line(file, recipe_figures.line_of("tasks/x", runs))
    once = file.read_text()
    assert once.splitlines()[3].startswith("# Figures, seed 0: accuracy 50.0 %; 1.0 min of a CPU thread each")
    recipe_figures.write_line(file, recipe_figures.line_of("tasks/x", runs))
    assert file.read_text() == once
    wide = {0: {"seconds": 1.0, "metrics": {"few_shot_accuracy": 0.5, "x_linear_probe": 0.5, "x_knn": 0.5}}}
    for _ in range(3):  # a line that takes two is renewed whole
        recipe_figures.write_line(file, recipe_figures.line_of("tasks/x", wide))
    assert file.read_text().count("# Figures, ") == 1 and len(file.read_text().splitlines()) == 6
    runs |= {seed: {"seconds": 90.0, "metrics": {"accuracy": 0.5 + seed / 10, "loss": 1.0}} for seed in (1, 2)}
    recipe_figures.write_line(file, recipe_figures.line_of("tasks/x", runs))
    assert "seeds 0, 1, 2: accuracy 60.0 ± 10.0 %; 1.5 min" in file.read_text()
    assert file.read_text().splitlines()[:3] == once.splitlines()[:3] and file.read_text().endswith("\nbase: b.yaml\n")


def test_recipes_come_after_those_whose_models_they_read():
    import recipe_figures

    waves = recipe_figures.in_waves(recipe_figures.recipes_of(recipe_figures.FOLDERS, ()))
    when = {name: place for place, wave in enumerate(waves) for name in wave}
    assert when["task_adaptation/bible_dapt_fine_tuning"] > when["task_adaptation/bible_dapt"]
    assert when["pretraining/emoji_lit"] > when["pretraining/emoji_categories"]
    assert not any(name.endswith("_paper") for name in when)


def test_every_cell_of_task_adaptation(monkeypatch, tmp_path):
    import task_adaptation as benchmark
    import task_adaptation_targets as targets

    monkeypatch.setattr(targets, "data_folder", lambda data, name, folder: name)
    monkeypatch.setattr(
        benchmark, "starting_point", lambda name, folder: "all-minilm" if name == "minilm" else "start"
    )
    monkeypatch.setattr(benchmark, "adapted_to_domain", lambda target, start, folder: start)
    one_each = {target.start: name for name, target in targets.TARGETS.items()}  # strategies follow from the start
    names = {name: list(targets.strategies(targets.TARGETS[name], "start")) for name in one_each.values()}
    names |= {name: [targets.FINE_TUNING] for name in targets.TARGETS if name not in names}
    for name, strategies in names.items():
        for strategy in strategies:
            try:
                check(benchmark.settings_of((name, strategy, 0), tmp_path))
            except (ValueError, TypeError) as error:
                raise AssertionError(f"{name} {strategy}: {error}") from error


def test_every_cell_of_pretraining(monkeypatch, tmp_path):
    import pretraining
    import pretraining_images as images
    import pretraining_text as text
    from pretraining_tables import TITLES

    from hf_transfer.runs.arguments import parse_arguments
    from hf_transfer.runs.ignored import check_nothing_is_ignored
    from hf_transfer.runs.task import with_task
    from hf_transfer.training.objectives import make_objectives

    monkeypatch.setattr(images, "data_folder", lambda data, name, folder: name)
    pairs = [(row, source) for row in images.ROWS for source in images.SOURCES]
    cells = [images.pretraining_settings(row, source, 0, tmp_path, False) for row, source in pairs]
    cells += [text.pretraining_settings(row, 0, dict.fromkeys(text.DATA, "here"), False) for row in text.ROWS]
    for settings in cells:
        experiment = with_task(parse_arguments([], **settings, output_dir=str(tmp_path)), pretraining=True)
        check_nothing_is_ignored(experiment)
        make_objectives(experiment.config.objectives)
    assert set(pretraining.SECTIONS) == set(TITLES)
    assert all(module.ROWS and callable(module.measure) for module in pretraining.SECTIONS.values())


def test_every_cell_of_other_tasks():
    import tasks

    for name, setting in tasks.all_settings().items():
        start = {} if setting.start is None else {"architecture": None, "model": "any"}
        for method, changes in setting.methods.items():
            try:
                check({**setting.arguments, **changes, **start, "diagnostics": False, "output_dir": "out"})
            except (ValueError, TypeError) as error:
                raise AssertionError(f"{name} {method}: {error}") from error


@pytest.fixture
def runs(monkeypatch):
    """Experiments that the benchmark of other tasks would have run."""
    import tasks

    from hf_transfer.runs.results import Result

    begun = []

    def run(experiment):
        folder = Path(experiment.config.output_dir) / "model"
        folder.mkdir(parents=True)
        begun.append(experiment)
        measured = {"map": 0.5, "map_50": 0.7, "map_75": 0.4, "loss": 2.0}
        return Result({**measured, **dict.fromkeys(("mean_iou", "mean_accuracy", "overall_accuracy"), 0.5)}, folder)

    monkeypatch.setattr(tasks, "run_adaptation", run)
    return begun


def test_a_cell_of_other_tasks_is_trained_once(runs, tmp_path):
    import tasks

    cells = [tasks.train(("boxes_google_to_twitter", "dann_mcc", 1), tmp_path) for _ in range(2)]
    assert cells[0] == cells[1] and cells[0]["metrics"] == {"map": 0.5, "map_50": 0.7, "map_75": 0.4}
    assert len(runs) == 1 and runs[0].config.seed == 1 and set(runs[0].config.objectives) == {"dann", "mcc"}
    page = tasks.to_markdown({"machine": "", "settings": tasks.finished(tmp_path)})
    assert "| dann_mcc | 50.0 | 70.0 | 40.0 | 1 |" in page


def test_the_page_of_pretraining_tells_gains_over_random_weights():
    import pretraining_tables as tables

    run = {"emoji: linear probe": 30.0, "emoji: fine-tuned": 40.0, "processor seconds": 1.0}
    better = {**run, "emoji: linear probe": 37.0, "emoji: fine-tuned": 44.0, "emoji: probe 1/3": 40.0}
    better |= {"emoji: probe 2/3": 41.0, "emoji: probe 3/3": 43.0}
    made = {"images": {"random weights (ResNet)": {"0": run}, "simclr": {"0": better}}}
    page = tables.markdown("a machine", made)
    assert "- simclr: 7.0 points; +2.0 in the last third" in page
    assert re.search(r"\| contrastive \|.*\| 3\.0 \| 4\.0 \|", page)
    assert tables.panels(made)[0]["emoji: fine-tuned"] == {"random weights (ResNet)": [40.0], "simclr": [44.0]}


def test_every_cell_of_multi_model(monkeypatch, tmp_path):
    import multi_model as benchmark

    body = {"rows": [{"model": f"model_{number}", "score": -number} for number in range(5)]}
    (tmp_path / "ranking.json").write_text(json.dumps(body))
    monkeypatch.setattr(benchmark, "ranking_of", lambda cell, folder: str(tmp_path))
    monkeypatch.setattr(benchmark, "rows_of", lambda name, seed, folder: {"train": "rows", "test": "more"})
    monkeypatch.setattr(benchmark, "members", lambda hub, folder: {name: name for name in benchmark.HUBS[hub]})
    for hub, target in dict(benchmark.PAIRS).items():  # one target for each hub
        for method in benchmark.methods(hub):
            if method not in benchmark.MADE:
                check_experiment(benchmark.experiment_of((hub, target, method, 0), tmp_path))
    assert not {"uniform soup", "TIES", "zoo_tuning"} & set(benchmark.methods("unlike"))


def test_cells_with_a_start_share_its_training(runs, tmp_path):
    import tasks

    for name in ("masks_few_20", "masks_few_100"):
        tasks.train((name, "lora", 0), tmp_path)
    start, few, more = runs
    assert start.model.architecture is not None and start.data.max_samples is None
    assert few.model.model == more.model.model == str(tmp_path / "starts" / "masks_google" / "model")
    assert (few.data.max_samples, more.data.max_samples) == (20, 100)


def test_every_target_of_the_ranking(tmp_path):
    from ranking_models import MAKERS
    from ranking_targets import TARGETS, settings_of

    for target in TARGETS.values():
        assert len(set(target.candidates)) >= 10 and set(target.candidates) <= set(MAKERS)
        settings = settings_of(target, {"train": "rows", "validation": "held out"}, seed=0)
        check({**settings, "model": "model", "learning_rate": target.rates[0], "output_dir": str(tmp_path)})


def test_the_rate_of_a_candidate_is_chosen_by_held_out_rows_and_unfinished_ones_do_not_count(tmp_path):
    import ranking_truth as benchmark

    models = benchmark.TARGETS["emoji"].candidates[:5]
    for place, model in enumerate(models):
        for rate in benchmark.TARGETS["emoji"].rates[: 2 if place == 4 else 3]:
            run = {"accuracy": 0.1 * place + rate, "validation": -rate, "best_step": 40, "steps": 160, "seconds": 1.0}
            folder = tmp_path / "trainings" / "emoji" / f"{model}-{rate:g}-0"
            folder.mkdir(parents=True)
            (folder / "cell.json").write_text(json.dumps(run))
        (tmp_path / "scores" / "emoji").mkdir(parents=True, exist_ok=True)
        scores = {"logme": place, "knn": -place, "linear_probe": 0.5}
        (tmp_path / "scores" / "emoji" / f"{model}.json").write_text(json.dumps(scores))
    facts = benchmark.of_target("emoji", tmp_path)
    assert list(facts["models"]) == list(models[:4])
    assert all(facts["models"][model]["seeds"][0]["rate"] == 0.0002 for model in models[:4])
    assert {name: round(tau["tau"], 6) for name, tau in facts["taus"].items()} == {"logme": 1, "knn": -1}
    assert benchmark.regret(facts, "logme") == 0 and benchmark.regret(facts, "knn") == pytest.approx(30)
    page = benchmark.markdown("A machine.", {"emoji": facts})
    assert "4 of 4 trainings ended because it no longer rose" in page
    assert f"| {models[3]} | 30.0 | 1 | 0.0002 |" in page
