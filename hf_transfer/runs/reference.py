"""The source-only model of an adaptation, which guard and estimates ask for: named by the user, or trained first."""

from __future__ import annotations

import copy
from dataclasses import replace
from pathlib import Path

from hf_transfer.core.random_state import kept_random_state
from hf_transfer.runs.arguments import IGNORE, Experiment, RunArguments
from hf_transfer.runs.guard import check_reference
from hf_transfer.runs.saving import read_results
from hf_transfer.runs.single_run import single_run
from hf_transfer.training.family_trainers import DomainAdaptationTrainer

REFERENCE_FOLDER = "source_only"


def is_guarded(run_args: RunArguments) -> bool:
    """Whether a run asks for the comparison."""
    return run_args.guard or run_args.source_only is not None


def reference_folder(trainer: DomainAdaptationTrainer, experiment: Experiment) -> Path:
    """The folder of the source-only model, which is trained where none is given.

    Args:
        trainer: of the adapted model, before its training.
        experiment: of the adapted model.

    Raises:
        ValueError: the run adapts to no domain, has no objectives or predicts what no validator can score, or the
            folder's model is of another kind.
    """
    run_args = experiment.run
    has_method = isinstance(trainer, DomainAdaptationTrainer) and (
        trainer.transfer_model.objectives or run_args.label_shift != IGNORE
    )
    if not has_method:
        raise ValueError(
            "`guard` and `source_only` compare an adaptation with source only: give a `target_dataset` and objectives."
        )
    if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
        raise ValueError("`guard` and `source_only` exchange the weights of models: use DDP, not FSDP or DeepSpeed.")
    if run_args.source_only is not None:
        folder = Path(run_args.source_only)
        check_reference(trainer, folder)
        return folder
    return source_only_folder(experiment, REFERENCE_FOLDER)


def source_only_folder(experiment: Experiment, name: str, share: float = 1.0) -> Path:
    """The folder of a source-only model of an adaptation, which is trained now unless a resumed run did so.

    Args:
        experiment: of the adaptation.
        name: of the run's folder, inside that of the adaptation.
        share: of the adaptation's steps.
    """
    run_args, config = experiment.run, experiment.config
    plain = copy.deepcopy(config)
    plain.objectives, plain.push_to_hub = None, False
    plain.output_dir = str(Path(config.output_dir) / name)
    if share < 1:
        # there may be no evaluation in so few steps
        plain.load_best_model_at_end, plain.early_stopping_patience = False, None
        plain.max_steps = max(1, round(share * config.max_steps)) if config.max_steps > 0 else config.max_steps
        plain.num_train_epochs = share * config.num_train_epochs
    folder = Path(plain.output_dir) / "model"
    plain_run = replace(
        run_args,
        guard=False,
        keep_adapted=False,
        label_shift=IGNORE,
        diagnostics=False,
        embedding="pca",
        model_folder=None,
    )
    if not (run_args.resume and read_results(folder) is not None):
        with kept_random_state():
            single_run(experiment._replace(run=plain_run, config=plain))
    return folder
