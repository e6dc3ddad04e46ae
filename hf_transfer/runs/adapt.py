"""Adapt a model to a labelled task, or from a labelled source to an unlabelled target; pre-train one."""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_transfer.data.checks import label_column
from hf_transfer.evaluation.offline_rl import check_environment, evaluate_trajectory_model
from hf_transfer.hub import HubError, check_can_push, check_can_write, push_command, push_folder
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.runs.arguments import Arguments, DataArguments, ModelArguments, RunArguments
from hf_transfer.runs.card import HELD_OUT_FILE, LOG_FILE, held_out_of, run_card, test_name, training_log
from hf_transfer.runs.data import RunData, load_data
from hf_transfer.runs.domain_report import DomainReport
from hf_transfer.runs.guard import SOURCE_ONLY, is_guarded, reference_folder
from hf_transfer.runs.ignored import check_nothing_is_ignored
from hf_transfer.runs.models import TRAJECTORY_TASK
from hf_transfer.runs.report import Remembering, class_table, tell_end
from hf_transfer.runs.rounds import run_rounds
from hf_transfer.runs.start import collator_for, start, trajectory_settings
from hf_transfer.runs.task import with_task
from hf_transfer.runs.train import (
    metrics_of,
    save_run,
    save_translation,
)
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, PretrainingTrainer, TaskAdaptationTrainer
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_model import alternates, label_spaces

MODEL_FOLDER = "model"
TRANSLATION_FOLDER = "translated"
OWN_MODULE = "hf_transfer.models.flowformer"
FIRST_EPISODE_SEED = 10_000
PRETRAINING_TASKS = ("masked-image-modeling", "fill-mask", "text-generation", TRAJECTORY_TASK)


def run_adaptation(arguments: Arguments) -> dict[str, float]:
    """Adapt, evaluate and save; a `target_dataset` makes it a domain adaptation.

    The adapted model goes to `output_dir/model`, an ordinary Hugging Face folder with a card and `results.json`; a
    translated data set to `output_dir/translated`, which `dataset` takes; the rounds of `student_rounds` before the
    last to `output_dir/round-0` and so on.

    Returns:
        The metrics on the test set.

    Raises:
        ValueError: unusable data, model or arguments; all before any training.
        FileExistsError: `output_dir/model` exists and neither `resume` nor `overwrite` was given.
    """
    arguments = with_task(arguments)
    model_args, data_args, run_args, config = arguments
    if run_args.student_rounds:
        check_output(run_args, config)
        return run_rounds(run_adaptation, arguments)
    trainer, data = make_adaptation(arguments)
    return finish(trainer, model_args, data_args, run_args, data)


def make_adaptation(arguments: Arguments) -> tuple[TransferTrainer, RunData]:
    """The trainer of an adaptation, ready to train, and its data. Raises as `run_adaptation`."""
    arguments = with_task(arguments)
    model_args, data_args, run_args, config = arguments
    check_nothing_is_ignored(arguments)
    check_output(run_args, config)
    raw = load_data(data_args, config.seed, label_spaces(config.objectives))
    if raw.test is not None:
        label_column(raw.test, "test")
    set_seed(config.seed)  # new heads, discriminators and random weights are drawn before the trainer seeds anything
    model, processor = start(model_args, data_args, raw, raw.class_names, raw.outputs, raw.kind.problem_type)
    data = raw.prepared(model.config, processor, data_args)
    if config.load_best_model_at_end and data.test is None and data.target is None:
        raise ValueError("`load_best_model_at_end` needs rows to evaluate on: give `test_dataset` or `test_rows`.")
    common: dict[str, Any] = {
        "train_dataset": data.train,
        "eval_dataset": data.test,
        "compute_metrics": metrics_of(model.config),
        "processing_class": processor,
        "data_collator": collator_for(
            model_args.task, processor, data.train, getattr(model.config, "pad_token_id", 0)
        ),
    }
    if data.target is not None:
        family = AlternatingTrainer if alternates(config.objectives) else DomainAdaptationTrainer
        trainer: TransferTrainer = family(model, config, target_dataset=data.target, **common)
    else:
        trainer = TaskAdaptationTrainer(model, config, **common)
    if not trainer.transfer_model.reads_head:
        raise ValueError(
            f"a {type(unwrap_peft(model)).__name__} has no linear head whose outputs the labels could be: name "
            "another `task`, or train it with its own loss by `hf-transfer pretrain`."
        )
    return trainer, data


def run_pretraining(arguments: Arguments) -> dict[str, float]:
    """Pre-train with the loss the model itself computes (masked images, masked or causal text), or with labels.

    Returns, raises and writes as `run_adaptation`.
    """
    arguments = with_task(arguments, pretraining=True)
    model_args, data_args, run_args, config = arguments
    if model_args.task not in PRETRAINING_TASKS:
        return run_adaptation(arguments)
    trainer, data = make_pretraining(arguments)
    further = further_metrics(model_args.task, trainer.adapted_model, trainer.processing_class, data_args, config.seed)
    return finish(trainer, model_args, data_args, run_args, data, further)


def make_pretraining(arguments: Arguments) -> tuple[TransferTrainer, RunData]:
    """The trainer of a pre-training, ready to train, and its data. Raises as `run_pretraining`."""
    arguments = with_task(arguments, pretraining=True)
    model_args, data_args, run_args, config = arguments
    if model_args.task not in PRETRAINING_TASKS:
        return make_adaptation(arguments)
    if data_args.target_dataset is not None:
        raise ValueError(f"`target_dataset` is for domain adaptation; {model_args.task} reads `dataset` alone.")
    check_nothing_is_ignored(arguments)
    check_output(run_args, config)
    raw = load_data(data_args, config.seed, reads_labels=False)
    set_seed(config.seed)
    model, processor = start(model_args, data_args, raw)
    # so that a model's own loss has nothing to confuse with its targets
    data = raw.prepared(model.config, processor, data_args, keep_labels=False)
    if model_args.task == TRAJECTORY_TASK:
        config.remove_unused_columns = False  # the columns are places in episodes, from which windows are read
    trainer = PretrainingTrainer(
        model,
        config,
        train_dataset=data.train,
        eval_dataset=data.test,
        processing_class=processor,
        data_collator=collator_for(model_args.task, processor, data.train),
    )
    return trainer, data


def further_metrics(
    task: str, model: Any, processor: Any, data_args: DataArguments, seed: int
) -> Callable[[dict[str, float]], dict[str, float]]:
    """What is measured after the evaluation's own metrics, from these: perplexity, or the score of playing.

    Raises:
        ValueError: the environment to play in is not of the model's sizes.
    """
    if task == "text-generation":
        return lambda metrics: {"perplexity": math.exp(metrics["loss"])} if "loss" in metrics else {}
    settings = trajectory_settings(data_args) if task == TRAJECTORY_TASK else None
    if settings is None or settings.environment is None:
        return lambda metrics: {}
    check_environment(model, settings.environment)
    names = ("target_return", "references", "episodes")
    keywords = {name: getattr(settings, name) for name in names}
    # episodes of their own: other ones than the bundled data begin with, and others for every seed of a run
    first = FIRST_EPISODE_SEED * (seed + 1)
    return lambda _: evaluate_trajectory_model(model, processor, settings.environment, seed=first, **keywords)


def check_output(run_args: RunArguments, config: TransferConfig) -> None:
    """Refuse an output folder in use unless told what to do with it, and a push that could not be made."""
    folder = Path(config.output_dir)
    if not (run_args.resume or run_args.overwrite):
        begun, finished = checkpoints(folder), (folder / MODEL_FOLDER).exists()
        if begun or finished:
            raise FileExistsError(
                f"`{folder}` holds {'checkpoints' if begun else 'the model'} of an earlier run: go on with --resume, "
                "start over with --overwrite, or choose another --output_dir."
            )
    check_can_write(folder / MODEL_FOLDER, overwrite=run_args.resume or run_args.overwrite)
    if config.push_to_hub:
        check_can_push(config.hub_model_id or folder.resolve().name, token=config.hub_token)


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are in an output folder."""
    return sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def finish(
    trainer: TransferTrainer,
    model_args: ModelArguments,
    data_args: DataArguments,
    run_args: RunArguments,
    data: RunData,
    further: Callable[[dict[str, float]], dict[str, float]] = lambda metrics: {},
) -> dict[str, float]:
    """Train (or go on), evaluate, save with a card, and push when the config says so.

    Args:
        trainer: ready to train.
        model_args: of the run, as all that follow.
        data_args: what to read.
        run_args: whether to resume or overwrite.
        data: prepared rows.
        further: metrics after training, from those of the evaluation.
    """
    config = trainer.args
    if run_args.overwrite:
        # A later --resume would go on from the newest of them.
        with PartialState().main_process_first():
            for checkpoint in checkpoints(Path(config.output_dir)):
                shutil.rmtree(checkpoint)
    arguments = (model_args, data_args, run_args, config)
    reference = reference_folder(run_adaptation, trainer, arguments) if is_guarded(run_args) else None
    report = DomainReport(trainer, run_args, reference)
    trainer.train(resume_from_checkpoint=True if run_args.resume else None)
    report.conclude()
    measured = Remembering(trainer.compute_metrics or (lambda prediction: {}))
    if trainer.compute_metrics is not None:
        trainer.compute_metrics = measured
    metrics = {}
    if data.test is not None or data.target is not None:
        evaluated = trainer.evaluate()
        hidden = ("_runtime", "_per_second", "_preparation_time", "epoch")
        metrics = {name.removeprefix("eval_"): value for name, value in evaluated.items() if not name.endswith(hidden)}
    metrics |= further(metrics)
    per_class = measured.class_figures(trainer.transfer_model.config)
    own = report.card_facts(measured.last)
    if per_class:
        own["tables"] = [*own["tables"], class_table(per_class, test_name(data_args))]
    folder = Path(config.output_dir) / MODEL_FOLDER
    results = {**metrics, **report.results()}
    source_only = reference if report.verdict is not None and report.verdict.kept == SOURCE_ONLY else None
    facts = run_card(trainer, arguments, data, metrics, own, folder, source_only)
    records = {LOG_FILE: training_log(trainer), HELD_OUT_FILE: held_out_of(data_args, data, config.seed)}
    save_run(trainer, folder, results, facts, overwrite=run_args.resume or run_args.overwrite, records=records)
    save_translation(trainer, folder.parent / TRANSLATION_FOLDER, data.train)
    if config.push_to_hub and trainer.is_world_process_zero():
        publish(folder, trainer)
    verdict = "" if report.verdict is None else report.verdict.in_words()
    tell_end(folder, {**results, "per_class": per_class}, arguments, reference, verdict)
    return metrics


def publish(folder: Path, trainer: TransferTrainer) -> None:
    """Push a saved model.

    Raises:
        HubError: the Hub refused or could not be reached; the message names the command that pushes it later.
    """
    config = trainer.args
    try:
        push_folder(folder, trainer.repository, private=config.hub_private_repo, token=config.hub_token)
    except (HubError, ValueError) as error:
        command = push_command(folder, trainer.repository, config.hub_private_repo)
        raise HubError(f"{error} The model is saved whole in `{folder}`; to publish it later: {command}") from error
