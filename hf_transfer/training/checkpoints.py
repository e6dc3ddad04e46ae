"""The folders of a training: which checkpoint is whole, of which run it is, and whether any can be written."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from datasets import Dataset
from transformers import TrainingArguments
from transformers.trainer import TRAINER_STATE_NAME
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR
from transformers.utils import logging

from hf_transfer.data.fingerprint import fingerprint
from hf_transfer.training.early_stopping import evaluations_without_gain

logger = logging.get_logger(__name__)

RECORD = "resume.json"
OWN_SETTINGS = ("task_loss_weight", "objective_warmup", "head_learning_rate_multiplier", "label_smoothing_factor")


def check_resumable(args: TrainingArguments, fsdp_plugin: Any) -> None:
    """Raises ValueError where the checkpoints of a training could not be gone on with.

    torch loads no optimizer's state into sharded weights where there is none, as of plain SGD.

    Args:
        args: settings of the training.
        fsdp_plugin: of accelerate; None without FSDP.
    """
    is_whole = fsdp_plugin is not None and "FULL_STATE_DICT" in str(fsdp_plugin.state_dict_type)
    if is_whole and fsdp_plugin.fsdp_version == 2 and args.optim == "sgd" and args.save_strategy != "no":
        raise ValueError(
            "checkpoints of `optim: sgd` cannot be resumed under FSDP2: choose another `optim`, such as adamw_torch, "
            "or keep no checkpoints (`save_strategy: no`)."
        )


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


def record_of(args: TrainingArguments, objectives: Mapping[str, Any], rows: Mapping[str, Any]) -> dict[str, Any]:
    """What a resumed training has to have in common with the one that it goes on with.

    Args:
        args: settings of the training.
        objectives: keywords of each objective by its name.
        rows: the datasets by what they are for.
    """
    names = ("learning_rate", "lr_scheduler_type", "weight_decay", "seed", "data_seed", "world_size", *OWN_SETTINGS)
    settings = {name: getattr(args, name) for name in names if hasattr(args, name)}
    settings["train_batch_size"] = args.train_batch_size * args.gradient_accumulation_steps * args.world_size
    settings["objectives"] = {name: dict(keywords) for name, keywords in objectives.items()}
    known = {name: fingerprint(one) for name, one in rows.items() if isinstance(one, Dataset)}
    # as JSON gives them back
    return json.loads(json.dumps({"rows": known, "settings": settings}, default=str))


def write_record(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Keep a record in a checkpoint."""
    (Path(folder) / RECORD).write_text(json.dumps(record, indent=2) + "\n")


def check_record(folder: str | Path, record: Mapping[str, Any]) -> None:
    """Compare a training with the one that left a checkpoint, before it goes on.

    Args:
        folder: the checkpoint. One that an earlier version left has no record and is not compared.
        record: of the present training.

    Raises:
        ValueError: the rows are others.
    """
    path = Path(folder) / RECORD
    if not path.is_file():
        logger.warning(f"{folder} has no {RECORD}: whether its rows and settings are these is not known.")
        return
    before = json.loads(path.read_text())
    other = [name for name, value in record["rows"].items() if before["rows"].get(name, value) != value]
    if other:
        raise ValueError(
            f"{folder} was trained with other rows than these (its {' and '.join(other)} data differ): going on would "
            "mix two trainings. Give the data of the first run, start over (--overwrite), or begin a new run from the "
            "saved model in another output_dir."
        )
    old, new = before["settings"], record["settings"]
    changes = [f"`{name}` {old[name]} -> {value}" for name, value in new.items() if old.get(name, value) != value]
    if changes:
        logger.warning(
            f"{folder} was trained with other settings: {', '.join(changes)}. The result will be that of neither run "
            "from its start; learning rate and weight decay stay those of the checkpoint, which holds the optimizer."
        )


def is_finished(folder: str | Path, args: TrainingArguments) -> bool:
    """Whether a checkpoint is the end of a training, which ended early or has no step left of the length that `args`
    ask for.
    """
    state = json.loads((Path(folder) / TRAINER_STATE_NAME).read_text())
    patience = getattr(args, "early_stopping_patience", None)
    if patience is not None and evaluations_without_gain(state.get("stateful_callbacks", {})) >= patience:
        return True
    if state["global_step"] < state["max_steps"]:
        return False
    if args.max_steps > 0:
        return args.max_steps == state["max_steps"]
    return args.num_train_epochs == state["num_train_epochs"]


def check_length(folder: str | Path, max_steps: int, is_constant: bool) -> None:
    """Compare the number of steps with that of the run that left a checkpoint, before the first one is taken.

    Args:
        folder: the checkpoint.
        max_steps: of the present training.
        is_constant: the learning rate and the objectives do not follow the share of the training that is done.

    Raises:
        ValueError: the run was finished, and its schedule with it, and more steps are asked for.
    """
    state = json.loads((Path(folder) / TRAINER_STATE_NAME).read_text())
    if is_constant or state["max_steps"] == max_steps:
        return
    if state["global_step"] >= state["max_steps"] and max_steps > state["global_step"]:
        raise ValueError(
            f"{folder} is the end of a run of {state['max_steps']} steps, whose schedule is finished; with "
            f"{max_steps} steps the learning rate would jump up again in the middle. To train longer, begin a new run "
            "from the saved model in another output_dir, or start over with all steps (--overwrite)."
        )
    logger.warning(
        f"{folder} is of a run of {state['max_steps']} steps and this one has {max_steps}: the learning rate and the "
        "weights of objectives jump to where a run of this length would be, and the result is not that of one."
    )
