"""A full disk leaves no half of a folder and says what to do."""

import errno
from pathlib import Path

import pytest
import torch

from hf_transfer.hub import atomic_folder, disk, removed_on_failure

FULL = OSError(errno.ENOSPC, "No space left on device")


def torch_error() -> RuntimeError:
    return RuntimeError("[enforce fail at inline_container.cc:670] . unexpected pos 64 vs 0")


@pytest.mark.parametrize(
    "error", [FULL, OSError(errno.EDQUOT, "quota"), Exception("Error while serializing: I/O error: No space left")]
)
def test_a_full_disk_is_told_and_cleaned_up(tmp_path: Path, error: Exception) -> None:
    folder = tmp_path / "checkpoint-2"
    message = r"disk is full: `.*checkpoint-2`.* MB are free.*Make room"
    with pytest.raises(OSError, match=message) as caught, removed_on_failure(folder, "Make room."):
        folder.mkdir()
        (folder / "half").write_bytes(b"x" * 10)
        raise error
    assert caught.value.errno == errno.ENOSPC and caught.value.__cause__ is error
    assert not folder.exists()


def test_torch_does_not_say_that_the_disk_was_full(tmp_path: Path, monkeypatch) -> None:
    assert not disk.is_disk_full(torch_error(), tmp_path)
    monkeypatch.setattr(disk, "free_bytes", lambda folder: 0)
    assert disk.is_disk_full(torch_error(), tmp_path)


def test_another_error_is_raised_as_it_is_and_leaves_no_half(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoint-2"
    with pytest.raises(RuntimeError, match="unexpected pos"), removed_on_failure(folder, ""):
        folder.mkdir()
        torch.save({}, folder / "half")
        raise torch_error()
    assert not folder.exists()


def test_the_old_folder_outlives_a_full_disk(tmp_path: Path) -> None:
    with atomic_folder(tmp_path / "model") as staging:
        (staging / "weights").write_text("old")
    with pytest.raises(OSError, match="the disk is full"), atomic_folder(tmp_path / "model", overwrite=True):
        raise FULL
    assert (tmp_path / "model" / "weights").read_text() == "old"
    assert [item.name for item in tmp_path.iterdir()] == ["model"]
