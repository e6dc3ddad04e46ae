"""Results of the benchmarks are kept as columns, and read back as the runs that they were."""

import json

import pytest

from tests.recipes.conftest import BENCHMARKS

RUNS = {
    "0": {"accuracy": 0.8123456789, "family": "plain", "settings": {"objectives": {"mcc": {}}}},
    "2": {"accuracy": 0.5, "family": "plain", "settings": {"objectives": {"mcc": {}}}, "seconds": 3},
}


@pytest.fixture(scope="module")
def cells(among_the_benchmarks):
    import cells

    return cells


def test_columns_hold_the_runs(cells):
    columns = cells.as_columns(RUNS)
    assert columns["seed"] == ["0", "2"] and columns["family"] == "plain" and columns["seconds"] == [None, 3]
    back = cells.as_runs(columns)
    assert back["0"] == {**RUNS["0"], "accuracy": 0.812346} and back["2"] == RUNS["2"]


@pytest.mark.parametrize("seeds", [["0"], ["0", "1"]])
def test_a_figure_that_is_a_list_comes_back_as_one(cells, seeds):
    runs = {seed: {"warnings": ["one"]} for seed in seeds}
    assert cells.as_runs(cells.as_columns(runs)) == runs


def test_a_list_of_numbers_is_a_line_of_json(cells, tmp_path):
    cells.write_json(tmp_path / "x.json", {"a": {"b": [1, 2.5, None], "c": {"d": "one  two"}}})
    text = (tmp_path / "x.json").read_text()
    assert '"b": [1, 2.5, null]' in text and json.loads(text)["a"] == {"b": [1, 2.5, None], "c": {"d": "one  two"}}


def test_what_is_kept_is_small():
    sizes = {path.name: path.stat().st_size for path in (BENCHMARKS / "results").iterdir()}
    assert not {name: size for name, size in sizes.items() if size > 100_000}
