"""Evaluate a saved model on labelled rows."""

from __future__ import annotations

import tempfile

from datasets import Dataset
from transformers import DataCollatorWithPadding, PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty
from hf_transfer.data.class_names import named_label_column, number_words, numbered_as
from hf_transfer.data.prepare import prepare
from hf_transfer.runs.arguments import ModelArguments
from hf_transfer.runs.models import load_model, load_processor
from hf_transfer.runs.train import accuracy_metric
from hf_transfer.trainer import TransferConfig, TransferTrainer


def run_evaluation(
    model: str,
    dataset: str,
    *,
    split: str | None = None,
    task: str = "image-classification",
    batch_size: int = 64,
    max_length: int | None = None,
) -> dict[str, float]:
    """Loss and accuracy of a saved classifier.

    Args:
        model: folder or Hub id of a model with a classification head.
        dataset: bundled name, Hub id, folder or file of labelled rows.
        split: which split of it.
        task: a key of `hf_transfer.runs.models.AUTO_CLASSES`.
        batch_size: rows at a time.
        max_length: cut text after so many tokens.

    Raises:
        ValueError: not a model, no such dataset, no labels, or labels outside the model's classes.
    """
    arguments = ModelArguments(model=model, task=task)
    rows = load(dataset, split)
    check_not_empty(rows, "evaluation")
    loaded = load_model(arguments, allow_new_weights=False)
    rows = numbered_as_model(rows, loaded.config)
    processor = load_processor(arguments, loaded.config)
    ready = prepare(rows, loaded.config, processor, max_length=max_length)
    is_text = isinstance(processor, PreTrainedTokenizerBase)
    with tempfile.TemporaryDirectory() as scratch:
        config = TransferConfig(scratch, per_device_eval_batch_size=batch_size, report_to=[])
        trainer = TransferTrainer(
            loaded,
            config,
            eval_dataset=ready,
            compute_metrics=accuracy_metric(),
            data_collator=DataCollatorWithPadding(processor) if is_text else None,
        )
        trainer.check_dataset(trainer.transfer_model, ready)
        metrics = trainer.evaluate()
    return {name: metrics[f"eval_{name}"] for name in ("loss", "accuracy")}


def numbered_as_model(rows: Dataset, config: PreTrainedConfig) -> Dataset:
    """The rows with their named classes numbered as in the model, where the model knows names.

    Raises:
        ValueError: a class that the model does not know, or another number of classes.
    """
    names = [config.id2label[place] for place in range(config.num_labels)]
    column = named_label_column(rows)
    if column is None:
        return rows
    if names != [f"LABEL_{place}" for place in range(config.num_labels)]:
        return numbered_as(rows, names, "evaluation")
    rows = number_words(rows)
    count = rows.features[column].num_classes
    if count != config.num_labels:
        raise ValueError(f"the evaluation dataset has {count} classes and the model {config.num_labels}.")
    return rows
