"""Every cell of the benchmarks has settings that a run accepts: names, types, objectives, and nothing ignored."""

import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "recipes" / "benchmarks"


@pytest.fixture(scope="module", autouse=True)
def among_the_benchmarks():
    """They import each other as scripts do."""
    sys.path.insert(0, str(BENCHMARKS))
    yield
    sys.path.remove(str(BENCHMARKS))


def check(settings: dict) -> None:
    """What a run checks of its arguments before it reads anything."""
    from hf_transfer.runs.arguments import parse_arguments
    from hf_transfer.runs.ignored import check_nothing_is_ignored
    from hf_transfer.training.objectives import make_objectives

    experiment = parse_arguments([], **settings)
    assert experiment.model.task is not None
    check_nothing_is_ignored(experiment)
    make_objectives(experiment.config.objectives)


def test_every_cell_of_domain_adaptation(monkeypatch, tmp_path):
    import domain_adaptation as benchmark

    monkeypatch.setattr(benchmark, "data_folder", lambda data, name, folder: name)
    cells, seen = [], set()  # every pair, and every candidate of every method on the first pair that it fits
    for pair in benchmark.PAIRS:
        for method, candidates in benchmark.METHODS.items():
            new = [(pair, method, place, 0) for place in range(len(candidates)) if (method, place) not in seen]
            if benchmark.fits(pair, method) and (new or pair not in {cell[0] for cell in cells}):
                cells += new or [(pair, method, 0, 0)]
                seen |= {cell[1:3] for cell in new}
    assert {cell[0] for cell in cells} == set(benchmark.PAIRS) and {cell[1] for cell in cells} == set(
        benchmark.METHODS
    )
    for cell in cells:
        try:
            check(benchmark.settings_of(cell, tmp_path, steps=None))
        except (ValueError, TypeError) as error:
            raise AssertionError(f"{cell}: {error}") from error


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
