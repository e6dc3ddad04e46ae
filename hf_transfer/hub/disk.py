"""A full disk, said in one sentence: where, how much is free, what became of the half-written files and what to do."""

from __future__ import annotations

import errno
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

FULL = (errno.ENOSPC, errno.EDQUOT)
# safetensors and torch put the operating system's words, or none of them, into exceptions of their own.
WORDS = ("no space left", "disk quota exceeded", "file too large")
TORCH_WORDS = ("pytorchstreamwriter", "unexpected pos", "file write failed")
LEAST_FREE = 2**20
"""Bytes. torch says of a failed write only that it failed; with less than this free, the disk was full."""


def is_disk_full(error: BaseException, folder: Path) -> bool:
    """Whether an exception, or one that it came from, says that `folder` could take no more.

    Args:
        error: what was raised in writing.
        folder: where to; asked for its free space before anything is removed.
    """
    seen: set[int] = set()
    current: BaseException | None = error
    while current is not None and id(current) not in seen:
        seen.add(id(current))
        text = str(current).lower()
        if getattr(current, "errno", None) in FULL or any(word in text for word in WORDS):
            return True
        if any(word in text for word in TORCH_WORDS) and free_bytes(folder) < LEAST_FREE:
            return True
        current = current.__cause__ or current.__context__
    return False


def free_bytes(folder: Path) -> int:
    """Bytes that can still be written to the file system of a folder, or of the nearest parent that exists."""
    existing = next(one for one in (folder, *folder.absolute().parents) if one.exists())
    return shutil.disk_usage(existing).free


@contextmanager
def removed_on_failure(folder: str | Path, advice: str) -> Iterator[None]:
    """Whatever fails inside leaves no half of `folder`; a full disk is an `OSError` that says what to do.

    Args:
        folder: what is being written; it is removed when the block raises.
        advice: what to do once there is space.

    Raises:
        OSError: the disk is full, with `errno.ENOSPC`; the original is its cause.
    """
    folder = Path(folder)
    try:
        yield
    except Exception as error:
        is_full = is_disk_full(error, folder)
        written = sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) if folder.is_dir() else 0
        shutil.rmtree(folder, ignore_errors=True)
        if not is_full:
            raise
        raise full_disk(folder, written, advice) from error


def full_disk(folder: Path, written: int, advice: str) -> OSError:
    """The error of a full disk.

    Args:
        folder: what could not be written whole and was removed.
        written: bytes of it that found room.
        advice: what to do once there is space.
    """
    return OSError(
        errno.ENOSPC,
        f"the disk is full: `{folder}` needs more than {written / 1e6:.1f} MB, and {free_bytes(folder) / 1e6:.1f} MB "
        f"are free there. The half that was written is removed, what was saved before is whole. {advice}",
    )
