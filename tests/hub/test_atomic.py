"""A crash at any point leaves the old folder or the new one."""

import os
import signal
import socket
from pathlib import Path

import pytest

from hf_transfer.hub import atomic, atomic_folder, check_can_write


def contents(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def save(folder: Path, text: str, overwrite: bool = False) -> None:
    with atomic_folder(folder, overwrite) as staging:
        (staging / "part").mkdir()
        (staging / "part" / "a.txt").write_text(text)
        (staging / f"{text}.txt").write_text(text)


def test_the_folder_appears_only_when_it_is_complete(tmp_path: Path) -> None:
    target = tmp_path / "deep" / "model"
    with atomic_folder(target) as staging:
        (staging / "a.txt").write_text("a")
        assert not target.exists()
    assert contents(target) == {"a.txt": "a"}
    assert os.listdir(target.parent) == ["model"]


def test_overwriting_replaces_the_whole_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    save(target, "old")
    with pytest.raises(FileExistsError, match="overwrite=True"):
        save(target, "new")
    assert contents(target) == {"part/a.txt": "old", "old.txt": "old"}
    save(target, "new", overwrite=True)
    assert contents(target) == {"part/a.txt": "new", "new.txt": "new"}
    assert os.listdir(tmp_path) == ["model"]


def test_without_a_swap_in_the_file_system_the_result_is_the_same(tmp_path: Path, monkeypatch) -> None:
    monkeypatch.setattr(atomic, "_swap", lambda first, second: False)
    test_overwriting_replaces_the_whole_folder(tmp_path)


def test_an_error_inside_the_block_keeps_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "model"
    save(target, "old")
    with pytest.raises(RuntimeError, match="out of memory"), atomic_folder(target, overwrite=True) as staging:
        (staging / "half.txt").write_text("half")
        raise RuntimeError("out of memory")
    assert contents(target) == {"part/a.txt": "old", "old.txt": "old"}
    assert os.listdir(tmp_path) == ["model"]


def die(*_, **__) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def save_and_be_killed(target: Path, point: str) -> None:
    """Overwrite `target` and be killed without warning at a point on the way."""
    if point == "renaming":  # the old folder is set aside, the new one is not yet in place
        atomic._swap = lambda first, second: False
        rename, calls = Path.rename, []
        Path.rename = lambda self, other: die() if calls else calls.append(rename(self, other))
    elif point == "flushing":
        atomic._flush = die
    with atomic_folder(target, overwrite=True) as staging:
        (staging / "new.txt").write_text("new")
        if point == "writing":
            die()
        elif point == "clearing up":
            atomic.shutil.rmtree = die


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    ("point", "left"),
    [("writing", "old"), ("flushing", "old"), ("renaming", None), ("clearing up", "new")],
)
def test_a_killed_process_leaves_old_or_new_and_the_next_save_clears_up(tmp_path: Path, point: str, left: str) -> None:
    target = tmp_path / "model[1]"
    with atomic_folder(target) as staging:
        (staging / "old.txt").write_text("old")
    child = os.fork()
    if child == 0:
        try:
            save_and_be_killed(target, point)
        finally:
            os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == -signal.SIGKILL
    if left is not None:
        assert contents(target) == {f"{left}.txt": left}
    assert len(os.listdir(tmp_path)) == 2, "the dead process left its staging folder"
    check_can_write(target, overwrite=True)  # any next use of the path first repairs it
    assert contents(target) == {f"{left or 'old'}.txt": left or "old"}
    assert os.listdir(tmp_path) == ["model[1]"]


def test_the_staging_folder_of_a_living_process_is_left_alone(tmp_path: Path) -> None:
    other = tmp_path / f".model.saving-{socket.gethostname()}-{os.getppid()}"
    other.mkdir()
    save(tmp_path / "model", "new")
    assert other.is_dir()


def test_two_processes_that_save_to_one_path_do_not_mix(tmp_path: Path) -> None:
    target = tmp_path / "model"
    with pytest.raises(FileExistsError, match="not empty"), atomic_folder(target) as staging:
        (staging / "mine.txt").write_text("mine")
        target.mkdir()
        (target / "theirs.txt").write_text("theirs")
    assert contents(target) == {"theirs.txt": "theirs"}


def test_a_file_in_the_way_and_a_parent_that_is_a_file_are_refused_before_any_work(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("kept")
    with pytest.raises(FileExistsError, match="is a file"):
        check_can_write(file, overwrite=True)
    with pytest.raises(PermissionError, match="cannot be written"):
        check_can_write(file / "below")
    assert file.read_text() == "kept"


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_an_unwritable_parent_is_named(tmp_path: Path) -> None:
    tmp_path.chmod(0o500)
    with pytest.raises(PermissionError, match=r"make .* writable"):
        check_can_write(tmp_path / "model")


def test_an_empty_folder_and_a_link_to_a_folder_are_written_through(tmp_path: Path) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "real")
    save(tmp_path / "link", "new")
    assert (tmp_path / "link").is_symlink()
    assert contents(tmp_path / "real") == {"part/a.txt": "new", "new.txt": "new"}
