"""The folders of a training: which checkpoint is whole, and whether any can be written."""

from __future__ import annotations

import json
import os
from pathlib import Path

from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

logger = logging.get_logger(__name__)


def last_complete_checkpoint(output_dir: str | Path) -> str | None:
    """The newest checkpoint folder that was written to its end, or None.

    The trainer's state is the last file of a checkpoint, so a folder that a kill cut short has none that can be read.
    """
    folders = [folder for folder in Path(output_dir).glob(f"{PREFIX_CHECKPOINT_DIR}-*") if folder.is_dir()]
    numbered = [folder for folder in folders if folder.name.rsplit("-", 1)[1].isdigit()]
    for folder in sorted(numbered, key=lambda item: int(item.name.rsplit("-", 1)[1]), reverse=True):
        try:
            json.loads((folder / TRAINER_STATE_NAME).read_text())
        except (OSError, ValueError):
            logger.warning(f"{folder} is incomplete (its writing was cut short) and is passed over.")
            continue
        return str(folder)
    return None


def check_writable(output_dir: str | Path) -> None:
    """Raises PermissionError or NotADirectoryError, with what to do, when the folder cannot be written."""
    folder = Path(output_dir)
    existing = next(parent for parent in (folder, *folder.absolute().parents) if parent.exists())
    if not existing.is_dir():
        raise NotADirectoryError(
            f"cannot write to `{output_dir}`: {existing} is a file. Choose another output folder."
        )
    if not os.access(existing, os.W_OK | os.X_OK):
        raise PermissionError(
            f"cannot write to `{output_dir}`: no permission on {existing}. Choose another output folder."
        )
