"""Train and save: the part that every kind of run has in common."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from datasets import Dataset
from peft import PeftModel

from hf_transfer.data.bundled import BUNDLED
from hf_transfer.data.text_length import with_limit
from hf_transfer.evaluation.answers import metrics_of
from hf_transfer.hub import DatasetFact, RunFacts, atomic_folder, complete_adapter, write_card
from hf_transfer.training.card_facts import adapter_facts, keywords_of, training_facts
from hf_transfer.training.converters import exported
from hf_transfer.training.trainer import TransferTrainer

RESULTS_FILE = "results.json"
HELD_OUT = " (held out)"
"""After the name of a dataset: a part of it that was not trained on."""
__all__ = [
    "RESULTS_FILE",
    "adapter_facts",
    "dataset_fact",
    "keywords_of",
    "metrics_of",
    "read_results",
    "save_run",
    "save_translation",
    "training_facts",
]


def save_run(
    trainer: TransferTrainer,
    folder: str | Path,
    results: Mapping[str, Any],
    facts: RunFacts | None,
    overwrite: bool = False,
    records: Mapping[str, Any] | None = None,
) -> None:
    """Write model, card and `results.json` as one folder that is there whole or not at all; main process only.

    Args:
        trainer: with the model.
        folder: where to.
        results: of `results.json`.
        facts: of the card; None writes none.
        overwrite: replace what is there.
        records: further JSON files by their names; those that are None are left out.
    """
    if trainer.is_world_process_zero():
        with atomic_folder(folder, overwrite=overwrite) as staging:
            exported(trainer.adapted_model).save_pretrained(staging)
            if isinstance(trainer.adapted_model, PeftModel):
                trained = trainer.transfer_model
                complete_adapter(staging, trained.config, trained.reads_head)
            if trainer.processing_class is not None:
                with_limit(trainer.processing_class, trainer.transfer_model.config).save_pretrained(staging)
            (staging / RESULTS_FILE).write_text(json.dumps(dict(results), indent=2) + "\n")
            for name, record in (records or {}).items():
                if record is not None:
                    (staging / name).write_text(json.dumps(record) + "\n")
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


def dataset_fact(name: str, role: str, rows: int | None, names: Mapping[str, str] | None = None) -> DatasetFact:
    """A dataset for the card; a Hub id is named as such, a bundled set or a path is not one.

    Args:
        name: as it was loaded.
        role: what it is for.
        rows: how many it has.
        names: what a dataset is called in place of its path; of a part of it, with HELD_OUT at the end.
    """
    shown = (names or {}).get(name, name)
    whole = shown.removesuffix(HELD_OUT)
    is_local = whole in BUNDLED or Path(whole).exists()
    return DatasetFact(shown, role, rows, hub_id=None if is_local else whole)
