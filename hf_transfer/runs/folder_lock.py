"""An output folder belongs to one run at a time: two would mix their checkpoints, and remove each other's files."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import broadcast_object_list


@contextmanager
def held_alone(folder: str | Path) -> Iterator[None]:
    """No other run of this machine is in the folder within the block; the end of a process, a kill too, lets go of it.

    The folder is made, and removed if it is still empty. The lock is on the folder itself and leaves no file. A folder
    that cannot be made, and a system or file system without such locks, are passed over.

    Args:
        folder: where a run writes.

    Raises:
        BlockingIOError: another process holds it.
    """
    folder, is_free = Path(folder).expanduser(), True
    descriptor: int | None = None
    is_new = PartialState().is_main_process and not folder.exists()
    if PartialState().is_main_process:
        with contextlib.suppress(OSError):  # those who write there say what is wrong with it
            folder.mkdir(parents=True, exist_ok=True)
            descriptor = os.open(folder, os.O_RDONLY) if folder.is_dir() and os.name != "nt" else None
        is_free = descriptor is None or is_locked(descriptor)
    told = [is_free]
    broadcast_object_list(told)
    try:
        if not told[0]:
            raise BlockingIOError(
                f"another process is at work in `{folder}`: wait for its end, stop it, or choose another folder."
            )
        yield
    finally:
        if descriptor is not None:
            os.close(descriptor)
        if is_new:
            with contextlib.suppress(OSError):
                folder.rmdir()


def is_locked(descriptor: int) -> bool:
    """Lock an open folder; False where another process has locked it."""
    import fcntl  # not on Windows

    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError as error:  # any other: a file system without locks
        return not isinstance(error, BlockingIOError)
    return True
