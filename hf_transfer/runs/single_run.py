"""One run: make the trainer of an experiment, train, evaluate, save with a card, and publish."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import set_seed
from transformers.trainer_utils import PREFIX_CHECKPOINT_DIR

from hf_transfer.data.checks import label_column
from hf_transfer.domain_adaptation.label_shift import LabelShift
from hf_transfer.hub import HubError, check_can_push, check_can_write, push_command, push_folder
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.runs.arguments import Experiment, RunArguments
from hf_transfer.runs.card import HELD_OUT_FILE, LOG_FILE, held_out_of, run_card, test_name, training_log
from hf_transfer.runs.data import RunData, load_data
from hf_transfer.runs.diagnostics import FIGURES_FOLDER
from hf_transfer.runs.domain_report import DomainReport
from hf_transfer.runs.guard import SOURCE_ONLY
from hf_transfer.runs.ignored import check_nothing_is_ignored
from hf_transfer.runs.importance import drawn_by_importance
from hf_transfer.runs.measured import measured_metrics, trains_head
from hf_transfer.runs.members import member_tables
from hf_transfer.runs.probes import make_probes, probe_plots
from hf_transfer.runs.report import Remembering, class_table, tell_end
from hf_transfer.runs.results import Result
from hf_transfer.runs.revision import revision_facts
from hf_transfer.runs.saving import save_run, save_translation
from hf_transfer.runs.setup import set_up
from hf_transfer.runs.stream_data import load_streams
from hf_transfer.runs.task import with_new_head, with_task
from hf_transfer.tasks import task_named
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, TaskAdaptationTrainer
from hf_transfer.training.objectives import label_sets_of, make_objectives
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_model import label_spaces

MODEL_FOLDER = "model"
TRANSLATION_FOLDER = "translated"


def make_adaptation(experiment: Experiment) -> tuple[TransferTrainer, RunData]:
    """The trainer of an adaptation, ready to train, and its data. Raises as `run_adaptation`."""
    experiment = with_task(experiment)
    experiment = experiment._replace(model=with_new_head(experiment.model))
    model_args, data_args, run_args, config = experiment
    check_nothing_is_ignored(experiment)
    check_output(run_args, config)
    task = task_named(model_args.task)
    if data_args.streaming:
        raw = load_streams(data_args, config.seed)
    else:
        raw = load_data(data_args, config.seed, label_spaces(config.objectives), task=task)
    sets = label_sets_of(make_objectives(config.objectives))
    raw = raw.with_label_sets(sets)
    if raw.test is not None:
        label_column(raw.test, "test")
    set_seed(config.seed)  # new heads, discriminators and random weights are drawn before the trainer seeds anything
    model, processor = set_up(model_args, data_args, raw, raw.class_names, raw.outputs, raw.kind.problem_type)
    task.remember(model, data_args, raw.known)
    data = raw.prepared(model.config, processor, data_args, reader=task.prepare, keep_columns=sets)
    if data_args.dat is not None:
        data = drawn_by_importance(raw, data, model_args.task, data_args, config.per_device_eval_batch_size)
    if config.load_best_model_at_end and data.test is None and data.target is None:
        raise ValueError("`load_best_model_at_end` needs rows to evaluate on: give `test_dataset` or `test_rows`.")
    if task.metrics_read_inputs:
        config.include_for_metrics = ["inputs"]
    common: dict[str, Any] = {
        "train_dataset": data.train,
        "eval_dataset": data.test,
        "compute_metrics": task.metrics_of_rows(model.config, raw.test, data.test),
        "preprocess_logits_for_metrics": task.reduced,
        "processing_class": processor,
        "data_collator": task.collator(processor, data.known, getattr(model.config, "pad_token_id", 0)),
    }
    if data.target is not None:
        trainer: TransferTrainer = DomainAdaptationTrainer(model, config, target_dataset=data.target, **common)
    else:
        trainer = TaskAdaptationTrainer(model, config, **common)
    if not trainer.transfer_model.reads_head and trainer.transfer_model.readout.own_task_loss is None:
        raise ValueError(
            f"a {type(unwrap_peft(model)).__name__} has no linear head whose outputs the labels could be: name "
            "another `task`, or train it with its own loss by `hf-transfer pretrain`."
        )
    return trainer, data


def make_pretraining(experiment: Experiment) -> tuple[TransferTrainer, RunData]:
    """The trainer of a pre-training, ready to train, and its data. Raises as `run_pretraining`."""
    experiment = with_task(experiment, pretraining=True)
    model_args, data_args, run_args, config = experiment
    task = task_named(model_args.task)
    if task.reads_labels:
        return make_adaptation(experiment)
    if data_args.target_dataset is not None:
        raise ValueError(f"`target_dataset` is for domain adaptation; {model_args.task} reads `dataset` alone.")
    check_nothing_is_ignored(experiment)
    check_output(run_args, config)
    raw = (load_streams if data_args.streaming else load_data)(data_args, config.seed, reads_labels=False)
    sets = label_sets_of(make_objectives(config.objectives))
    raw = raw.with_label_sets(sets)
    set_seed(config.seed)
    model, processor = set_up(model_args, data_args, raw)
    task.remember(model, data_args, raw.known)
    collator = task.pretraining_collator(processor, data_args)
    # so that a model's own loss has nothing to confuse with its targets
    data = raw.prepared(
        model.config, processor, data_args, keep_labels=task.keeps_labels, collator=collator, keep_columns=sets
    )
    if task.keeps_columns:
        config.remove_unused_columns = False
    probes = make_probes(data_args.transfer_probes, task, model, processor, config)
    trainer = task.pretrainer(
        model,
        config,
        train_dataset=data.train,
        eval_dataset=data.test,
        compute_metrics=None if data.test is None else task.metrics(model, processor, raw.test, data_args),
        processing_class=processor,
        data_collator=collator or task.collator(processor, data.known),
        transfer_probes=probes,
    )
    return trainer, data


def model_folder_of(run_args: RunArguments, config: TransferConfig) -> Path:
    """Where the finished model goes."""
    return Path(run_args.model_folder or Path(config.output_dir) / MODEL_FOLDER)


def check_output(run_args: RunArguments, config: TransferConfig) -> None:
    """Refuse an output folder in use unless told what to do with it, and a push that could not be made."""
    folder, model = Path(config.output_dir), model_folder_of(run_args, config)
    if run_args.model_folder is not None:
        check_model_folder(model, folder)
    if not (run_args.resume or run_args.overwrite):
        begun, finished = checkpoints(folder), model.exists()
        if begun or finished:
            used = folder if begun or run_args.model_folder is None else model
            raise FileExistsError(
                f"`{used}` holds {'checkpoints' if begun else 'the model'} of an earlier "
                "run: go on with --resume, start over with --overwrite, or choose another --output_dir."
            )
    check_can_write(model, overwrite=run_args.resume or run_args.overwrite)
    if config.push_to_hub:
        check_can_push(config.hub_model_id or folder.resolve().name, token=config.hub_token)


def check_model_folder(model: Path, output_dir: Path) -> None:
    """Raises ValueError for a folder that a model may not replace: it holds the run, or what is no model."""
    if output_dir.resolve().is_relative_to(model.resolve()):
        raise ValueError(
            f"`model_folder` should not be `output_dir` or above it, got `{model}` and `{output_dir}`: the model "
            "replaces the whole folder."
        )
    is_model = any((model / name).is_file() for name in ("config.json", "adapter_config.json"))
    if model.is_dir() and any(model.iterdir()) and not is_model:
        raise ValueError(f"`model_folder` holds something else than a model, got `{model}`: choose another folder.")


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that are in an output folder."""
    return sorted(folder.glob(f"{PREFIX_CHECKPOINT_DIR}-*"))


def clear_checkpoints(experiment: Experiment) -> None:
    """Remove an earlier run's checkpoints where `overwrite` is given: a later --resume would go on from the newest."""
    if experiment.run.overwrite:
        with PartialState().main_process_first():
            for checkpoint in checkpoints(Path(experiment.config.output_dir)):
                shutil.rmtree(checkpoint)


def single_run(experiment: Experiment) -> Result:
    """An adaptation without guard and without rounds.

    Raises:
        ValueError: unusable data, model or arguments; all before any training.
        FileExistsError: `output_dir/model` exists and neither `resume` nor `overwrite` was given.
    """
    experiment = with_task(experiment)
    trainer, data = make_adaptation(experiment)
    return finish(trainer, experiment, data)


def finish(
    trainer: TransferTrainer,
    experiment: Experiment,
    data: RunData,
    reference: Path | None = None,
    shift: LabelShift | None = None,
) -> Result:
    """Train (or go on), evaluate, save with a card, and push when the configuration says so.

    Args:
        trainer: ready to train.
        experiment: that it was made of.
        data: prepared rows.
        reference: folder of the source-only model that the guard compares with.
        shift: class shares of both domains, where they were estimated.
    """
    config, run_args = trainer.args, experiment.run
    further = task_named(experiment.model.task).further_metrics(
        trainer.adapted_model, trainer.processing_class, experiment.data, config.seed
    )
    clear_checkpoints(experiment)
    report = DomainReport(trainer, run_args, reference, shift)
    trainer.train(resume_from_checkpoint=True if run_args.resume else None)
    report.conclude()
    measured = Remembering(trainer.compute_metrics or (lambda prediction: {}))
    if trainer.compute_metrics is not None:
        trainer.compute_metrics = measured
    metrics = measured_metrics(trainer, data)
    metrics |= further(metrics)
    per_class = measured.class_figures(trainer.transfer_model.config) if trains_head(trainer) else {}
    own = report.card_facts(measured.last)
    if per_class:
        own["tables"] = [*own["tables"], class_table(per_class, test_name(experiment.data))]
    own["tables"] = [*own.get("tables", []), *member_tables(trainer, data)]
    own["plots"] = [*own.get("plots", []), *probe_plots(trainer, Path(config.output_dir) / FIGURES_FOLDER)]
    folder = model_folder_of(run_args, config)
    results = {**metrics, **report.results(), **revision_facts(experiment)}
    source_only = reference if report.verdict is not None and report.verdict.kept == SOURCE_ONLY else None
    facts = run_card(trainer, experiment, data, metrics, own, folder, source_only)
    records = {
        LOG_FILE: training_log(trainer, experiment),
        HELD_OUT_FILE: held_out_of(experiment.data, data, config.seed),
    }
    save_run(trainer, folder, results, facts, overwrite=run_args.resume or run_args.overwrite, records=records)
    save_translation(trainer, Path(config.output_dir) / TRANSLATION_FOLDER, data.known)
    if config.push_to_hub and trainer.is_world_process_zero():
        publish(folder, trainer)
    verdict = "" if report.verdict is None else report.verdict.in_words()
    tell_end(folder, {**results, "per_class": per_class}, experiment, reference, verdict)
    return Result(metrics, folder, report.verdict)


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
