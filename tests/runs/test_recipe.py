import json
import sys

import pytest

from hf_transfer.runs.recipe import run_recipe


def test_metrics_are_printed_with_the_number_of_processes(monkeypatch, capsys):
    monkeypatch.setattr(sys, "argv", ["adapt.py", "--dataset", "d", "--model", "m"])
    run_recipe(lambda arguments: {"accuracy": 0.5, "dataset": arguments[1].dataset})
    assert json.loads(capsys.readouterr().out) == {"processes": 1, "accuracy": 0.5, "dataset": "d"}


@pytest.mark.parametrize("error", [ValueError, TypeError, FileNotFoundError])
def test_a_mistake_ends_the_process_with_one_paragraph(monkeypatch, error):
    def run(arguments):
        raise error("first line\n\n  second line")

    monkeypatch.setattr(sys, "argv", ["adapt.py", "--dataset", "d", "--model", "m"])
    with pytest.raises(SystemExit) as left:
        run_recipe(run)
    assert left.value.code == f"{error.__name__}: first line second line"


def test_a_fault_of_ours_keeps_its_traceback(monkeypatch):
    def run(arguments):
        raise RuntimeError("a fault")

    monkeypatch.setattr(sys, "argv", ["adapt.py", "--dataset", "d", "--model", "m"])
    with pytest.raises(RuntimeError):
        run_recipe(run)


def test_ctrl_c_says_how_to_go_on(monkeypatch, capsys, tmp_path):
    def run(arguments):
        (tmp_path / "checkpoint-3").mkdir()
        (tmp_path / "checkpoint-3" / "trainer_state.json").write_text("{}")
        raise KeyboardInterrupt

    monkeypatch.setattr(sys, "argv", ["adapt.py", "--dataset", "d", "--model", "m", "--output_dir", str(tmp_path)])
    with pytest.raises(SystemExit) as left:
        run_recipe(run)
    assert left.value.code == 130
    told = capsys.readouterr().err
    assert "checkpoint-3 keeps the first 3 steps; go on with: the same command with --resume" in told
