"""The thin family trainers: what a family has of its own to say over TransferTrainer."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from datasets import Dataset, concatenate_datasets
from peft import PeftModel
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_transfer.data.checks import LABEL_COLUMNS, check_not_empty, check_two_domains, column_values, label_column
from hf_transfer.objective import IGNORED_LABEL, SOURCE, TARGET, Objective
from hf_transfer.trainer import TransferConfig, TransferTrainer
from hf_transfer.transfer_model import TransferModel
from hf_transfer.validators import VALIDATORS

logger = logging.get_logger(__name__)


class PretrainingTrainer(TransferTrainer):
    """Pre-training: the loss is the one the model returns (masked image or language modelling, causal language modelling)."""

    supervision = "model"


class TaskAdaptationTrainer(TransferTrainer):
    """Adaptation to a labelled task, with any regulariser against forgetting and negative transfer."""


class DomainAdaptationTrainer(TransferTrainer):
    """Adaptation from a labelled source to an unlabelled target.

    Every batch is half source, half target. Target labels are replaced by -100 before training, so none can be read.
    With `load_best_model_at_end=True` the checkpoint is chosen by `args.validator` on the unlabelled training rows, unless
    `metric_for_best_model` names something else; the evaluation metrics are logged beside it.

    Args:
        model: a Hugging Face model with a linear head, or a PEFT model around one.
        args: TransferConfig; `args.validator` is the name of a label-free score.
        train_dataset: the labelled source; or both domains in one dataset with a `domain` column (0 = source, 1 = target).
        target_dataset: the target; its labels, if it has any, are not used.
        validation_rows: at most this many rows of each domain go into the validator.
        kwargs: everything else TransferTrainer takes.

    Raises:
        ValueError: one domain is missing or empty, an unknown validator, and all that TransferTrainer raises.

    Papers: Ganin et al. 2016 (https://huggingface.co/papers/1505.07818) for the setting; each objective names its own.
    """

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | TransferModel,
        args: TransferConfig,
        *,
        train_dataset: Dataset,
        target_dataset: Dataset | None = None,
        objectives: Mapping[str, Objective | Mapping[str, Any] | None] | None = None,
        validation_rows: int = 2000,
        **kwargs: Any,
    ):
        if args.validator not in VALIDATORS:
            raise ValueError(f"unknown validator `{args.validator}`, accepted: {sorted(VALIDATORS)}.")
        module, attribute = VALIDATORS[args.validator].split(":")
        self.validator = getattr(importlib.import_module(module), attribute)
        dataset = join_domains(train_dataset, target_dataset)
        if args.metric_for_best_model in (None, "loss"):
            args.metric_for_best_model = self.validator_metric(args)
            args.greater_is_better = True
        super().__init__(model, args, train_dataset=dataset, objectives=objectives, **kwargs)
        self.validation_dataset = self._validation_rows(dataset, validation_rows)

    @staticmethod
    def validator_metric(args: TransferConfig) -> str:
        """The name under which the validator's score is logged."""
        return f"eval_{args.validator}"

    def _validation_rows(self, dataset: Dataset, limit: int) -> Dataset:
        """Evenly spaced rows of each domain."""
        domains = column_values(dataset, "domain")
        chosen = []
        for domain in (SOURCE, TARGET):
            rows = np.flatnonzero(domains == domain)
            chosen.extend(rows[np.linspace(0, len(rows) - 1, min(limit, len(rows))).astype(int)].tolist())
        return dataset.select(chosen)

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """The ordinary evaluation where there is a dataset for it, and the validator's score beside it."""
        metrics = {}
        if eval_dataset is not None or self.eval_dataset is not None:
            metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        if metric_key_prefix == "eval":
            score = {self.validator_metric(self.args): self.validate()}
            self.log(dict(score))
            metrics.update(score)
        return metrics

    def validate(self) -> float:
        """The validator's score of the present model; no target label is read. Higher is better."""
        column = label_column(self.validation_dataset, "validation")
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        self.transfer_model.returns_features = True
        try:
            loader = self.get_test_dataloader(self.validation_dataset.remove_columns(column))
            output = self.evaluation_loop(loader, description="Validation", prediction_loss_only=False)
        finally:
            self.args.dataloader_drop_last = drop_last
            self.transfer_model.returns_features = False
        logits, features = (torch.from_numpy(values) for values in output.predictions)
        domain = torch.from_numpy(column_values(self.validation_dataset, "domain"))
        labels = torch.from_numpy(column_values(self.validation_dataset, column))
        return float(self.validator(features, logits, domain, labels))

    def _load_best_model(self) -> None:
        super()._load_best_model()
        logger.warning(
            f"{self.state.best_model_checkpoint} was chosen by `{self.args.metric_for_best_model}` = "
            f"{self.state.best_metric:.4f}"
            + (", without target labels." if self.args.metric_for_best_model == self.validator_metric(self.args) else ".")
        )


def join_domains(source: Dataset, target: Dataset | None) -> Dataset:
    """One dataset with a `domain` column and no target labels.

    Args:
        source: labelled rows, or rows of both domains with a `domain` column when `target` is None.
        target: rows of the target domain.

    Raises:
        ValueError: a domain is missing or empty, or both datasets have different columns.
    """
    if target is None:
        if "domain" not in source.column_names:
            raise ValueError(
                "one domain is missing: pass `target_dataset`, or a dataset with a `domain` column (0 = source, 1 = target); "
                f"this one has {source.column_names}."
            )
        check_not_empty(source, "training")
        column = label_column(source, "training")
        domains = column_values(source, "domain")
        check_two_domains(domains)
        hidden = np.where(domains == TARGET, IGNORED_LABEL, column_values(source, column))
        return _replace_column(source, column, hidden)
    for name, dataset in (("source", source), ("target", target)):
        check_not_empty(dataset, name)
    column = label_column(source, "source")
    target = target.remove_columns([name for name in LABEL_COLUMNS if name in target.column_names])
    source = _replace_column(source, column, column_values(source, column))
    target = _replace_column(target, column, np.full(len(target), IGNORED_LABEL))
    source = _replace_column(source, "domain", np.full(len(source), SOURCE))
    target = _replace_column(target, "domain", np.full(len(target), TARGET))
    missing = set(source.column_names) ^ set(target.column_names)
    if missing:
        raise ValueError(f"source and target should have the same columns; these are in one only: {sorted(missing)}.")
    target = target.select_columns(source.column_names).with_format(None)
    joined = concatenate_datasets([source.with_format(None), target.cast(source.features)])
    return joined.with_format(**_format_of(source))


def _format_of(dataset: Dataset) -> dict[str, Any]:
    return {"type": dataset.format["type"], **dataset.format["format_kwargs"]}


def _replace_column(dataset: Dataset, name: str, values: np.ndarray) -> Dataset:
    """The dataset with `name` holding `values`; class names are dropped, since -100 is not a class."""
    kept = dataset.with_format(None)
    if name in kept.column_names:
        kept = kept.remove_columns(name)
    kept = kept.add_column(name, values.tolist())
    return kept.with_format(**_format_of(dataset))
