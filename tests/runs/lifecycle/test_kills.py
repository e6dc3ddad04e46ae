"""The same command after a kill at any moment ends with the same result, and does nothing twice."""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal

from hf_transfer import Lifecycle
from tests.runs.lifecycle.test_lifecycle import changed

PLAN = changed(
    task={"methods": ["fine_tuning", {"l2_sp": {}}], "search": {"learning_rate": [0.01, 0.001]}},
    training={"max_steps": 6, "per_device_train_batch_size": 8, "use_cpu": True},
)


def carry_out(folder: str) -> None:
    """The whole plan, in a process of its own."""
    os.chdir(folder)
    Lifecycle(PLAN, quiet=True).run()


@pytest.fixture(scope="module")
def processes():
    """Makes processes that have imported everything already, each with nothing of another's state."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["hf_transfer.runs.lifecycle"])
    return context


def a_folder(workshop: Path, folder: Path) -> Path:
    folder.mkdir()
    for item in workshop.iterdir():
        (folder / item.name).symlink_to(item)
    return folder


def finish(processes, folder: Path) -> float:
    """Run the plan to its end; seconds that it took."""
    started = time.perf_counter()
    process = processes.Process(target=carry_out, args=(str(folder),))
    process.start()
    process.join()
    assert process.exitcode == 0
    return time.perf_counter() - started


def killed_after(processes, folder: Path, seconds: float) -> bool:
    """Whether the plan was killed after so many seconds; False where it was finished before."""
    process = processes.Process(target=carry_out, args=(str(folder),))
    process.start()
    process.join(seconds)
    if process.exitcode is not None:
        assert process.exitcode == 0
        return False
    os.kill(process.pid, signal.SIGKILL)
    process.join()
    return True


def records(folder: Path) -> dict[str, int]:
    """Every finished piece with the time at which it was written."""
    return {path.name: path.stat().st_mtime_ns for path in (folder / "out" / "state").glob("[!.]*.json")}


def result_of(folder: Path) -> tuple[dict, list]:
    facts = json.loads((folder / "out" / "report.json").read_text())
    facts["entries"] = [{**entry, "seconds": None} for entry in facts["entries"]]
    return load_file(folder / "out" / "model" / "model.safetensors"), [
        facts[name] for name in ("verdict", "entries", "trials", "curves", "confusion", "wrong", "embeddings")
    ]


def check_kills(processes, workshop: Path, root: Path, kills: int) -> None:
    seconds = finish(processes, a_folder(workshop, root / "straight"))
    expected, moments, done, number = result_of(root / "straight"), random.Random(0), 0, 0
    while done < kills:
        number += 1
        folder, before = a_folder(workshop, root / f"killed{number}"), {}
        while done < kills and killed_after(processes, folder, moments.uniform(0.1, seconds)):
            done += 1
            now = records(folder)
            assert before.items() <= now.items(), "a finished piece was done again, or lost"
            before = now
        finish(processes, folder)
        assert before.items() <= records(folder).items()
        weights, facts = result_of(folder)
        assert facts == expected[1]
        assert weights.keys() == expected[0].keys() and all(equal(weights[key], expected[0][key]) for key in weights)
        assert set(records(folder)) == set(records(root / "straight"))
        left = [path.name for path in (folder / "out").iterdir()]
        assert sorted(left) == sorted(path.name for path in (root / "straight" / "out").iterdir())


@pytest.mark.slow
def test_kills_change_nothing(processes, workshop, tmp_path):
    check_kills(processes, workshop, tmp_path, kills=2)


@pytest.mark.slow
def test_twenty_kills_change_nothing(processes, workshop, tmp_path):
    check_kills(processes, workshop, tmp_path, kills=20)


@pytest.mark.slow
def test_two_processes_carry_out_a_plan_and_one_finds_it_done_by_two(here):
    plan = {**PLAN, "candidates": ["bert", "gpt2"], "task": {"methods": ["fine_tuning"]}}
    Path("plan.json").write_text(json.dumps(plan))
    words = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2", "-m"]
    environment = {**os.environ, "ACCELERATE_USE_CPU": "true", "PYTHONPATH": str(Path(__file__).parents[3])}
    for done in (1, 0):
        command = [*words, "hf_transfer.cli", "run", "plan.json", "--json"]
        ran = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=600)
        assert ran.returncode == 0, ran.stderr
        assert json.loads(ran.stdout)["model"] == "out/model", "one process prints"
        cost = json.loads(Path("out/report.json").read_text())["cost"]
        assert (cost["processes"], cost["done_now"], cost["trainings"]) == (2, done, 1)
