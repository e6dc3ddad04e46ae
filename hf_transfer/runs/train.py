"""Train and save: the part that every kind of run has in common."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import numpy as np
from accelerate import PartialState
from datasets import Dataset
from peft import PeftConfig, PeftModel
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedModel

from hf_transfer.converters import conversions_of, converter
from hf_transfer.core.task_loss import problem_type_of
from hf_transfer.core.task_metrics import task_metrics
from hf_transfer.data.bundled import BUNDLED
from hf_transfer.hub import DatasetFact, MethodFact, RunFacts, atomic_folder, write_card
from hf_transfer.model_anatomy import unwrap_peft
from hf_transfer.models.short_names import packaged_name
from hf_transfer.trainer import TransferTrainer
from hf_transfer.tuners.difference import DifferenceConfig, changed_parameters

RESULTS_FILE = "results.json"


def metrics_of(config: PreTrainedConfig) -> Callable[[EvalPrediction], dict[str, float]]:
    """`compute_metrics` of a Trainer: those of the model's problem type, over the rows that have a label.

    Args:
        config: of the model; a trainer settles the `problem_type` in it before it evaluates anything.
    """

    def compute(prediction: EvalPrediction) -> dict[str, float]:
        labels = np.asarray(prediction.label_ids)
        return task_metrics(prediction.predictions, labels, problem_type_of(config, labels))

    return compute


def training_facts(trainer: TransferTrainer) -> dict[str, Any]:
    """What the trainer knows of a run, as keywords of `RunFacts`: methods with papers, settings, base model."""
    args = trainer.args
    return {
        "base_model": packaged_name(unwrap_peft(trainer.adapted_model).config._name_or_path or "") or None,
        "methods": [
            MethodFact(type(method).__name__, method.paper, keywords_of(method))
            for method in (*trainer.transfer_model.objectives.values(), *trainer.schedules)
        ]
        + [
            MethodFact(name, converter(name).paper, keywords)
            for name, keywords in conversions_of(trainer.adapted_model).items()
        ]
        + adapter_facts(trainer.adapted_model),
        "hyper_parameters": {
            "learning_rate": args.learning_rate,
            "head_learning_rate_multiplier": args.head_learning_rate_multiplier,
            "lr_scheduler_type": str(args.lr_scheduler_type.value),
            "max_steps": trainer.state.max_steps,
            "train_batch_size": trainer.get_total_train_batch_size(args),
            "weight_decay": args.weight_decay,
            "seed": args.seed,
            "num_processes": args.world_size,
        },
    }


def adapter_facts(model: PreTrainedModel | PeftModel) -> list[MethodFact]:
    """The adapter of a PEFT model with the settings that are not its defaults, and how much a difference changes."""
    if not isinstance(model, PeftModel):
        return []
    config = model.active_peft_config
    own = {one.name: one for one in fields(config) if one.name not in PeftConfig.__dataclass_fields__}
    chosen = {name: getattr(config, name) for name, one in own.items() if getattr(config, name) != one.default}
    keywords = {name: value for name, value in chosen.items() if isinstance(value, int | float | str)}
    if isinstance(config, DifferenceConfig):
        keywords["changed"] = str(changed_parameters(model))
    return [MethodFact(type(config).__name__.removesuffix("Config"), getattr(config, "paper", ""), keywords)]


def keywords_of(objective: Any) -> dict[str, Any]:
    """The plain-valued attributes of an objective: its hyper-parameters."""
    return {
        name: value
        for name, value in vars(objective).items()
        if isinstance(value, int | float | str) and not name.startswith("_") and name != "training"
    }


def save_run(
    trainer: TransferTrainer,
    folder: str | Path,
    results: Mapping[str, Any],
    facts: RunFacts | None,
    overwrite: bool = False,
) -> None:
    """Write model, card and `results.json` as one folder that is there whole or not at all; main process only."""
    if trainer.is_world_process_zero():
        with atomic_folder(folder, overwrite=overwrite) as staging:
            trainer.adapted_model.save_pretrained(staging)
            if trainer.processing_class is not None:
                trainer.processing_class.save_pretrained(staging)
            (staging / RESULTS_FILE).write_text(json.dumps(dict(results), indent=2) + "\n")
            if facts is not None:
                write_card(staging, facts)
    PartialState().wait_for_everyone()


def save_translation(trainer: TransferTrainer, folder: str | Path, dataset: Dataset) -> None:
    """Write the dataset as a method that translates shows it, for `datasets.load_from_disk`; main process only.

    It replaces one of an earlier run. Without such a method nothing is written.
    """
    translators = [one for one in trainer.transfer_model.objectives.values() if hasattr(one, "translate")]
    if translators and trainer.is_world_process_zero():
        with atomic_folder(folder, overwrite=True) as staging:
            translators[0].translate(dataset).save_to_disk(staging)
    PartialState().wait_for_everyone()


def read_results(folder: str | Path) -> dict[str, Any] | None:
    """The results of a finished run, or None when the folder holds none."""
    path = Path(folder) / RESULTS_FILE
    return json.loads(path.read_text()) if path.is_file() else None


def dataset_fact(name: str, role: str, rows: int | None) -> DatasetFact:
    """A dataset for the card; a Hub id is named as such, a bundled set or a path is not one."""
    is_local = name in BUNDLED or Path(name).exists()
    return DatasetFact(name, role, rows, hub_id=None if is_local else name)
