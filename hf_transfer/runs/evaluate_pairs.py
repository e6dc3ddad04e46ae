"""Evaluate a saved model with an image and a text tower: retrieval of captions, and zero-shot classification."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from typing import Any

from datasets import ClassLabel, Dataset

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.image_text import PROMPTS, PairMetrics, check_prompts
from hf_transfer.modeling.class_texts import prompt_of
from hf_transfer.runs.models import load_model
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import ModelArguments
from hf_transfer.training.pairs_trainer import PairsTrainer
from hf_transfer.training.trainer import TransferConfig

MADE = "_prompt"


def evaluate_pairs(
    arguments: ModelArguments,
    rows: Dataset,
    batch_size: int,
    reading: Mapping[str, Any],
    prompts: Sequence[str] = (),
) -> dict[str, float]:
    """Recall in both directions where the images have texts, zero-shot accuracy where they have classes with names.

    Args:
        arguments: which model, and the task.
        rows: with an image column, and a text column or labels with names.
        batch_size: rows at a time.
        reading: `max_length` and `text_columns`, as `prepare` takes them.
        prompts: texts with a `{}` for the name of a class.

    Raises:
        ValueError: not a model with two towers, neither texts nor classes with names, or a row without its text.
    """
    check_prompts(prompts or PROMPTS)
    names, label = named_classes(rows)
    texts = [name for name, one in rows.features.items() if getattr(one, "dtype", None) in WORDS]
    has_texts = bool(set(texts) - set(LABEL_COLUMNS))
    if not has_texts:
        if label is None:
            raise ValueError(
                f"the rows have neither a text nor a class with a name, only {rows.column_names}: use "
                'dataset.class_encode_column("label") for words.'
            )
        # the text tower has to be given something; what it makes of it is not measured
        rows = rows.add_column(MADE, [names[number] for number in rows[label]])
        reading = {**reading, "text_columns": [MADE]}
    task = task_named(arguments.task)
    loaded = load_model(arguments, allow_new_weights=False)
    processor = task.load_processor(arguments, loaded.config)
    prompts = tuple(prompts) or (prompt_of(loaded.config, processor.tokenizer),)
    ready = prepare(rows, loaded.config, processor, **reading)
    measure = PairMetrics(loaded, processor.tokenizer, names, prompts, reading.get("max_length"))
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        collator = task.collator(processor, ready)
        keywords = {"eval_dataset": ready, "data_collator": collator, "compute_metrics": measure}
        metrics = PairsTrainer(loaded, config, **keywords).evaluate()
    found = {name.removeprefix("eval_"): value for name, value in metrics.items()}
    wanted = ("recall", "zero_shot") if has_texts else ("zero_shot",)
    return {name: value for name, value in found.items() if any(one in name for one in wanted)}


def named_classes(rows: Dataset) -> tuple[tuple[str, ...], str | None]:
    """The names of the classes and the column with their numbers; none where labels have no names."""
    for name in LABEL_COLUMNS:
        if isinstance(rows.features.get(name), ClassLabel):
            return tuple(rows.features[name].names), name
    return (), None
