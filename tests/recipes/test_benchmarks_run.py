"""One command runs all benchmarks: none is left out, commands parse, failures are told, and finished ones stay."""

import argparse
import importlib
import json
import re
import shlex
import sys
from pathlib import Path

import pytest

from tests.recipes.conftest import BENCHMARKS

OWN = {"run", "suites"}


@pytest.fixture(scope="module")
def run(among_the_benchmarks):
    yield importlib.import_module("run")
    sys.modules.pop("run", None)


def test_every_script_is_a_benchmark_or_a_module_of_one(run):
    texts = {path.stem: path.read_text() for path in BENCHMARKS.glob("*.py") if path.stem not in OWN}
    assert set(run.BENCHMARKS) <= set(texts)
    for name, text in texts.items():
        if "add_argument(" in text or name in run.BENCHMARKS:
            assert name in run.BENCHMARKS, f"{name}.py has options of its own: name it in suites.py."
        else:
            used = (other for stem, other in texts.items() if stem != name)
            named = any(re.search(rf"^ *(from|import) {name}\b|\"{name}\.py\"", other, re.MULTILINE) for other in used)
            assert named or name.startswith("tasks_"), f"no benchmark uses {name}.py, and suites.py does not name it."


class Parsed(Exception):
    """The options of a script were accepted."""


@pytest.mark.parametrize("suite", ["quick", "full"])
def test_commands_parse(run, suite, monkeypatch, capsys):
    assert run.main(["--suite", suite, "--dry-run"]) == 0
    commands = [shlex.split(line) for line in capsys.readouterr().out.splitlines() if line.startswith("OMP_NUM")]
    assert len(commands) >= len(run.BENCHMARKS) - 2  # a GPU and a second checkout may be missing
    original = argparse.ArgumentParser.parse_args

    def parse(parser, *given):
        original(parser, *given)
        raise Parsed

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse)
    for threads, python, script, *options in commands:
        assert re.fullmatch(r"OMP_NUM_THREADS=\d", threads) and python == "python"
        monkeypatch.setattr(sys, "argv", [script, *options])
        with pytest.raises(Parsed):
            importlib.import_module(Path(script).stem).main()


@pytest.fixture
def two_scripts(run, monkeypatch, tmp_path):
    """One that fails while there is no file `repaired`, and one that writes its page: how to call the command."""
    from suites import Benchmark

    repaired, counted = tmp_path / "repaired", tmp_path / "count"
    (tmp_path / "broken.py").write_text(
        f"import pathlib, sys\nif not pathlib.Path({str(repaired)!r}).exists():\n    sys.exit('no such rows')\n"
    )
    (tmp_path / "sound.py").write_text(
        "import pathlib, sys\n"
        f"open({str(counted)!r}, 'a').write('x')\n"
        "folder = pathlib.Path(sys.argv[sys.argv.index('--output_dir') + 1])\n"
        "folder.mkdir(parents=True, exist_ok=True)\n"
        "(folder / 'sound.md').write_text('# Sound')\n"
    )
    benchmarks = {
        "broken": Benchmark("fails", "none", quick="--seeds 0"),
        "absent": Benchmark("cannot run", "none", hindrance=lambda: "it needs a telescope."),
        "sound": Benchmark("runs", "median", quick="--seeds 0 1"),
    }
    monkeypatch.setattr(run, "BENCHMARKS", benchmarks)
    monkeypatch.setattr(run, "HERE", tmp_path)
    folders = ["--runs_dir", str(tmp_path / "runs")]
    return lambda *options: run.main([*folders, *options])


def test_a_failure_is_told_and_the_others_go_on(two_scripts, tmp_path, capsys):
    assert two_scripts() == 1
    told = capsys.readouterr().out
    assert "broken: exit code 1, no such rows" in told.split("failed; the same command tries them again")[1]
    assert "absent: skipped, it needs a telescope." in told
    journal = json.loads((tmp_path / "runs" / "benchmarks.json").read_text())
    assert {name: entry["exit_code"] for name, entry in journal.items()} == {"broken": 1, "sound": 0}
    assert journal["sound"]["seconds"] >= 0 and {"torch", "python"} <= set(journal["sound"]["versions"])
    page = (tmp_path / "runs" / "results" / "README.md").read_text()
    (row,) = [line for line in page.splitlines() if "sound.py" in line]
    assert "[sound.md](sound.md) | `OMP_NUM_THREADS=1 python recipes/benchmarks/sound.py --seeds 0 1` |" in row
    assert "| 0 1 | median |" in row and "broken.py" not in page


def test_what_finished_is_not_run_again_unless_asked(two_scripts, tmp_path, capsys):
    two_scripts()
    (tmp_path / "repaired").touch()
    assert two_scripts() == 0
    assert "sound: finished on" in capsys.readouterr().out
    assert (tmp_path / "count").read_text() == "x"
    assert json.loads((tmp_path / "runs" / "benchmarks.json").read_text())["broken"]["exit_code"] == 0
    assert two_scripts("--only", "sound", "--again") == 0
    assert (tmp_path / "count").read_text() == "xx"


def test_dry_run_runs_nothing(two_scripts, tmp_path):
    assert two_scripts("--dry-run") == 0
    assert not (tmp_path / "runs").exists()


def test_the_text_around_the_table_stays(run, tmp_path):
    page = tmp_path / "README.md"
    page.write_text(f"# Before\n\n{run.START}\nreplaced\n{run.END}\n\n## After\n")
    run.write_table("quick", tmp_path)
    text = page.read_text()
    assert text.startswith("# Before\n") and text.endswith("\n\n## After\n") and "replaced" not in text
    page.write_text("# No markers\n")
    with pytest.raises(ValueError, match="commands: begin"):
        run.write_table("quick", tmp_path)
    assert page.read_text() == "# No markers\n"
