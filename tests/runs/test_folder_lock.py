"""Of two runs in one folder the second is refused; whatever ends a run lets go of its folder."""

import multiprocessing
import os
import signal

import pytest

from hf_transfer import Lifecycle
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.folder_lock import held_alone


def hold(folder, told) -> None:
    with held_alone(folder):
        told.send(True)
        signal.pause()


@pytest.fixture
def holder(tmp_path):
    """A process that holds the folder `out` until it is killed."""
    context = multiprocessing.get_context("fork")
    here, there = context.Pipe()
    process = context.Process(target=hold, args=(tmp_path / "out", there))
    process.start()
    assert here.poll(20)
    yield process
    process.kill()
    process.join()


@pytest.mark.skipif(os.name == "nt", reason="folders are not locked on Windows")
def test_a_second_run_is_refused_until_the_first_is_gone(tmp_path, holder):
    out = tmp_path / "out"
    experiment = parse_arguments(["--model", "any", "--dataset", "any.csv", "--output_dir", str(out)])
    plan = {"data": {"train": "any.csv"}, "candidates": ["any"], "publish": {"output_dir": str(out)}}
    for start in (Lifecycle(plan).run, lambda: run_adaptation(experiment), lambda: run_pretraining(experiment)):
        with pytest.raises(BlockingIOError, match="another process is at work in `.*out`"):
            start()
    holder.kill()
    holder.join()
    with held_alone(out):
        assert out.is_dir()


def test_a_folder_is_left_as_it_was_found(tmp_path):
    with held_alone(tmp_path / "new"):
        pass
    assert not (tmp_path / "new").exists()
    (tmp_path / "file").touch()
    with held_alone(tmp_path / "file"), held_alone(tmp_path / "file" / "below"):
        assert (tmp_path / "file").is_file()
    with held_alone(tmp_path / "used"):
        (tmp_path / "used" / "model").mkdir()
    assert [path.name for path in (tmp_path / "used").iterdir()] == ["model"]
