"""Save a folder so that a crash leaves the old one or the new one, never half of either.

The new folder is written beside its destination (the same file system), flushed to the disk, and put in place by one
rename. Where the old folder has to make way, Linux and macOS swap the two names in one step; where the file system
cannot swap, the old folder is set aside first and the next `atomic_folder` on the same path puts it back if the
process died in between.
"""

import ctypes
import os
import shutil
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil

from hf_transfer.hub.disk import removed_on_failure

_AT_CURRENT_DIRECTORY = {"linux": -100, "darwin": -2}
_SWAP_FUNCTION = {"linux": "renameat2", "darwin": "renameatx_np"}
_SWAP_FLAG = 2  # RENAME_EXCHANGE on Linux, RENAME_SWAP on macOS


@contextmanager
def atomic_folder(path: str | os.PathLike, overwrite: bool = False) -> Iterator[Path]:
    """Yield an empty staging folder that becomes `path` when the block ends without an error.

    Args:
        path: the folder to write. Its parents are made.
        overwrite: replace a folder that already holds something. The old one stays complete until the new one is.

    Yields:
        The staging folder. Save into it what belongs into `path`.

    Raises:
        FileExistsError: `path` is a file, or a folder that is not empty and `overwrite` is False.
        PermissionError: nothing can be written beside `path`.
        OSError: the disk is full.

    Example:
        >>> with atomic_folder("flowformer-base", overwrite=True) as staging:
        ...     model.save_pretrained(staging)
    """
    target = Path(path).expanduser().resolve()
    staging = _open_staging(target, overwrite)
    try:
        with removed_on_failure(
            staging, f"Make room beside {target}, then save again: `--resume` trains no step twice."
        ):
            yield staging
            _flush(staging)
            _put_in_place(staging, target, overwrite)
    finally:
        shutil.rmtree(staging, ignore_errors=True)


def check_can_write(path: str | os.PathLike, overwrite: bool = False) -> None:
    """Raise what `atomic_folder(path, overwrite)` would raise on entering: a long run asks before it starts."""
    target = Path(path).expanduser().resolve()
    shutil.rmtree(_open_staging(target, overwrite))


def _open_staging(target: Path, overwrite: bool) -> Path:
    staging = target.parent / f".{target.name}.saving-{socket.gethostname()}-{os.getpid()}"
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        _recover(target)
        shutil.rmtree(staging, ignore_errors=True)
        staging.mkdir()
    except OSError as error:
        raise PermissionError(
            f"The folder {target} cannot be written: {error}. Choose another folder, or make {target.parent} writable."
        ) from error
    try:
        _refuse_unless_free(target, overwrite)
    except FileExistsError:
        staging.rmdir()
        raise
    return staging


def _refuse_unless_free(target: Path, overwrite: bool) -> None:
    if target.exists() and not target.is_dir():
        raise FileExistsError(f"{target} is a file; a folder is to be saved there. Choose another name.")
    if not overwrite and target.is_dir() and any(target.iterdir()):
        raise FileExistsError(f"The folder {target} is not empty. Pass `overwrite=True` to replace it.")


def _set_aside(target: Path) -> Path:
    return target.parent / f".{target.name}.previous"


def _recover(target: Path) -> None:
    """Put back what a dead process had set aside, and remove the staging folders of dead processes of this host."""
    previous = _set_aside(target)
    if previous.is_dir():
        if target.exists():
            shutil.rmtree(previous, ignore_errors=True)
        else:
            previous.rename(target)
    prefix = f".{target.name}.saving-{socket.gethostname()}-"
    for folder in target.parent.iterdir():
        process = folder.name.removeprefix(prefix)
        if folder.name.startswith(prefix) and process.isdigit() and not psutil.pid_exists(int(process)):
            shutil.rmtree(folder, ignore_errors=True)


def _put_in_place(staging: Path, target: Path, overwrite: bool) -> None:
    # Asked again: another process may have saved to the same path while this one was writing.
    _refuse_unless_free(target, overwrite)
    if not target.exists():
        staging.rename(target)
    elif not _swap(staging, target):
        previous = _set_aside(target)
        target.rename(previous)
        try:
            staging.rename(target)
        except OSError:
            previous.rename(target)
            raise
        shutil.rmtree(previous, ignore_errors=True)
    _flush_entry(target.parent)


def _swap(first: Path, second: Path) -> bool:
    """Exchange two folders in one step. False where the system or the file system cannot."""
    if sys.platform not in _SWAP_FUNCTION:
        return False
    function = getattr(ctypes.CDLL(None, use_errno=True), _SWAP_FUNCTION[sys.platform], None)
    if function is None:
        return False
    here = _AT_CURRENT_DIRECTORY[sys.platform]
    return function(here, os.fsencode(first), here, os.fsencode(second), ctypes.c_uint(_SWAP_FLAG)) == 0


def _flush(folder: Path) -> None:
    for directory, _, names in os.walk(folder):
        for name in names:
            _flush_entry(Path(directory, name))
        _flush_entry(Path(directory))


def _flush_entry(path: Path) -> None:
    if path.is_dir() and os.name == "nt":  # Windows does not open directories
        return
    descriptor = os.open(path, os.O_RDONLY if os.name != "nt" else os.O_RDWR)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
