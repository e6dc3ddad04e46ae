"""Adapt a model to a labelled task, or from a labelled source to an unlabelled target; pre-train one."""

from __future__ import annotations

from hf_transfer.runs.arguments import Experiment
from hf_transfer.runs.folder_lock import held_alone
from hf_transfer.runs.label_shift import corrects, estimated_shift, with_held_out_source
from hf_transfer.runs.reference import is_guarded, reference_folder
from hf_transfer.runs.results import Result
from hf_transfer.runs.revision import record_revision, with_revision
from hf_transfer.runs.rounds import run_rounds
from hf_transfer.runs.single_run import MODEL_FOLDER as MODEL_FOLDER
from hf_transfer.runs.single_run import check_output, clear_checkpoints, finish, make_adaptation, make_pretraining
from hf_transfer.runs.task import with_task
from hf_transfer.tasks import task_named


def run_adaptation(experiment: Experiment) -> Result:
    """Adapt, evaluate and save; a `target_dataset` makes it a domain adaptation.

    The adapted model goes to `output_dir/model`, an ordinary Hugging Face folder with a card and `results.json`; a
    translated data set to `output_dir/translated`, which `dataset` takes; the rounds of `student_rounds` before the
    last to `output_dir/round-0` and so on.

    Returns:
        The metrics on the test set, the model's folder, and the guard's verdict.

    Raises:
        ValueError: unusable data, model or arguments; all before any training.
        FileExistsError: `output_dir/model` exists and neither `resume` nor `overwrite` was given.
        BlockingIOError: another process is at work in `output_dir`.
    """
    with held_alone(experiment.config.output_dir):
        return adaptation(experiment)


def adaptation(experiment: Experiment) -> Result:
    """As `run_adaptation`, in an output folder that is held already."""
    experiment = with_held_out_source(with_task(with_revision(experiment)))
    if experiment.run.student_rounds:
        check_output(experiment.run, experiment.config)
        record_revision(experiment)
        return run_rounds(experiment)
    trainer, data = make_adaptation(experiment)
    record_revision(experiment)
    if corrects(experiment):
        trainer.check_label_shift()
    elif not is_guarded(experiment.run):
        return finish(trainer, experiment, data)
    clear_checkpoints(experiment)  # the reference may take long, and be interrupted
    reference = reference_folder(trainer, experiment) if is_guarded(experiment.run) else None
    shift = estimated_shift(trainer, experiment, reference)
    return finish(trainer, experiment, data, reference, shift)


def run_pretraining(experiment: Experiment) -> Result:
    """Pre-train with the loss the model itself computes (masked images, texts), or with labels.

    Returns, raises and writes as `run_adaptation`.
    """
    with held_alone(experiment.config.output_dir):
        experiment = with_task(with_revision(experiment), pretraining=True)
        if task_named(experiment.model.task).reads_labels:
            return adaptation(experiment)
        trainer, data = make_pretraining(experiment)
        record_revision(experiment)
        return finish(trainer, experiment, data)
