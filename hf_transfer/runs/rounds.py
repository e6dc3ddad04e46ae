"""A run in rounds: a teacher, then students that learn from the model before (noisy student)."""

from __future__ import annotations

import copy
import inspect
import shutil
from dataclasses import replace
from pathlib import Path

from accelerate import PartialState

from hf_transfer.domain_adaptation.noisy_student import noisy_student
from hf_transfer.runs.arguments import Experiment, ModelArguments, RunArguments
from hf_transfer.runs.results import Result
from hf_transfer.runs.saving import read_results
from hf_transfer.runs.single_run import single_run
from hf_transfer.training.trainer import TransferConfig
from hf_transfer.training.transfer_model import objective_class


def run_rounds(experiment: Experiment) -> Result:
    """`student_rounds` + 1 runs, one after the other; with `resume` the finished ones are passed over.

    The first, in `output_dir/round-0`, leaves out the objectives that take a `teacher`; the last is in `output_dir`.

    Args:
        experiment: of the last round.

    Returns:
        The result of the last student.

    Raises:
        ValueError: none of the objectives takes a teacher, or `student` without an `architecture`.
        FileExistsError: `output_dir` holds an earlier run and neither `resume` nor `overwrite` was given.
    """
    model_args, data_args, run_args, config = experiment
    taught = [name for name in config.objectives or {} if takes_teacher(name)]
    if not taught:
        raise ValueError("`student_rounds` needs an objective that takes a teacher: objectives: {noisy_student: {}}.")
    if run_args.student is not None and model_args.architecture is None:
        raise ValueError("`student` changes an `architecture`; this run starts from a `model`.")
    if run_args.overwrite:
        with PartialState().main_process_first():
            for folder in Path(config.output_dir).glob("round-*"):
                shutil.rmtree(folder)

    one_round = replace(run_args, student_rounds=0, student=None)

    def train_round(folder: Path, teacher: Path | None) -> None:
        model = round_model(model_args, run_args, teacher)
        single_run(Experiment(model, data_args, one_round, round_config(config, folder, taught, teacher)))

    last = noisy_student(train_round, config.output_dir, run_args.student_rounds, resume=run_args.resume)
    return Result(read_results(last), Path(last))


def takes_teacher(name: str) -> bool:
    """Whether an objective has a keyword `teacher`."""
    return "teacher" in inspect.signature(objective_class(name)).parameters


def round_model(model_args: ModelArguments, run_args: RunArguments, teacher: Path | None) -> ModelArguments:
    """What the model of a round starts from: the students' architecture may be another than the first teacher's."""
    if teacher is None or run_args.student is None:
        return model_args
    return replace(model_args, architecture={**model_args.architecture, **run_args.student})


def round_config(config: TransferConfig, folder: Path, taught: list[str], teacher: Path | None) -> TransferConfig:
    """The settings of a round: its folder, and the teacher of the objectives that take one."""
    settings = copy.copy(config)
    settings.output_dir = str(folder)
    settings.push_to_hub = config.push_to_hub and folder == Path(config.output_dir)
    rest = {name: keywords for name, keywords in config.objectives.items() if name not in taught}
    lessons = {name: {**(config.objectives[name] or {}), "teacher": str(teacher)} for name in taught}
    settings.objectives = rest if teacher is None else {**rest, **lessons}
    return settings
