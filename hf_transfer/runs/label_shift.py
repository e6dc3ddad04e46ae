"""The class shares of a target, estimated by a source-only model and said before an adaptation trains on them.

`label_shift: correct` trains by the estimate, see `hf_transfer.domain_adaptation.label_shift`; `ignore` changes
nothing of a training, and tells the estimate where the guard has trained source only anyway and source rows are held
out.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path

from transformers.utils import logging

from hf_transfer.core.random_state import kept_random_state
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.label_shift import LabelShift
from hf_transfer.runs.arguments import CORRECT, Experiment
from hf_transfer.runs.card import LOG_FILE
from hf_transfer.runs.domain_report import class_names
from hf_transfer.runs.guard import kept_weights, load_reference
from hf_transfer.runs.reference import source_only_folder
from hf_transfer.training.family_trainers import DomainAdaptationTrainer
from hf_transfer.training.trainer import TransferTrainer

logger = logging.get_logger(__name__)

HELD_OUT = 0.1
"""Share of the source that is held out for the estimate where `source_holdout` does not say more."""
FOLDER = "label_shift"
SHARE = 1 / 3
"""Of the adaptation's steps, how many a source-only model is trained for that serves the estimate alone."""


def corrects(experiment: Experiment) -> bool:
    """Whether a run trains by estimated class shares."""
    return experiment.run.label_shift == CORRECT


def with_held_out_source(experiment: Experiment) -> Experiment:
    """The experiment, with source rows to estimate by where it corrects a shift.

    Raises:
        ValueError: streams, whose rows cannot be held out, or several processes that share one model.
    """
    config = experiment.config
    if not corrects(experiment) or experiment.data.target_dataset is None:
        return experiment
    if experiment.data.streaming:
        raise ValueError(
            "`label_shift: correct` holds source rows out, which those of a stream have no numbers for: leave "
            "`streaming` out."
        )
    if config.fsdp or config.deepspeed:
        raise ValueError("`label_shift: correct` exchanges the weights of models: use DDP, not FSDP or DeepSpeed.")
    if config.source_holdout > 0:
        return experiment
    logger.warning(
        f"`label_shift: correct` holds {HELD_OUT:.0%} of the source out, by which class shares are estimated "
        "(`source_holdout` says another share)."
    )
    config = copy.deepcopy(config)
    config.source_holdout = HELD_OUT
    return experiment._replace(config=config)


def estimated_shift(trainer: TransferTrainer, experiment: Experiment, reference: Path | None) -> LabelShift | None:
    """What a source-only model tells of the target's class shares, in the log too; None where the run asks for none.

    With `label_shift: correct` the trainer trains by it from now on.

    Args:
        trainer: of the adaptation, before its training.
        experiment: of the adaptation.
        reference: folder of the guard's source-only model, if there is one; else a short training makes one.
    """
    if not isinstance(trainer, DomainAdaptationTrainer):
        return None
    is_told = reference is not None and trainer.problem_type == SINGLE_LABEL and trainer.args.source_holdout > 0
    if not corrects(experiment) and not (is_told and trainer.transfer_model.readout.units_are_rows):
        return None
    if corrects(experiment):
        trainer.check_label_shift()
    folder = source_only_folder(experiment, FOLDER, SHARE) if reference is None else reference
    with kept_random_state(), kept_weights(trainer):
        load_reference(trainer, folder)
        shift = LabelShift.of(*trainer.validation_outputs()[1:])
    names = class_names(trainer)
    doubts = [*shift.warnings(names), *seen_in_training(folder, trainer)]
    for line in (shift.in_words(names), *doubts):
        logger.warning(line)
    if corrects(experiment):
        trainer.correct_label_shift(shift)
        logger.warning(who_is_weighted(trainer))
    return shift


def seen_in_training(folder: Path, trainer: DomainAdaptationTrainer) -> list[str]:
    """A sentence where the source-only model may have been trained on the rows that are held out here."""
    log = folder / LOG_FILE
    told = json.loads(log.read_text())["hyper_parameters"] if log.is_file() else {}
    if all(told.get(name) == getattr(trainer.args, name) for name in ("source_holdout", "seed")):
        return []
    return [
        f"`{folder}` was not trained with this `source_holdout` and `seed`: it may have seen the source rows that are "
        "held out here, and look surer than it is."
    ]


def who_is_weighted(trainer: DomainAdaptationTrainer) -> str:
    """Which loss terms give source rows the weights of their classes."""
    objectives = trainer.transfer_model.objectives
    weighing = [f"`{name}`" for name, one in objectives.items() if one.weighs_source]
    others = [f"`{name}`" for name, one in objectives.items() if not one.weighs_source]
    told = f"Source rows are weighted by class in the task loss{''.join(f' and {name}' for name in weighing)}"
    return told + (f"; not in {' and '.join(others)}." if others else ".")
