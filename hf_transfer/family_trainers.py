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

from hf_transfer.data.checks import check_not_empty, check_two_domains, column_values, label_column
from hf_transfer.data.columns import format_of, replace_column, without_labels
from hf_transfer.objective import IGNORED_LABEL, SOURCE, TARGET, Objective
from hf_transfer.trainer import TransferConfig, TransferTrainer
from hf_transfer.transfer_model import TransferModel
from hf_transfer.validators import VALIDATORS

logger = logging.get_logger(__name__)


class PretrainingTrainer(TransferTrainer):
    """Pre-training: the loss is the one the model returns (masked images, masked or causal language modelling)."""

    supervision = "model"

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As the Trainer's, but a loss that needs no labels (masked images) counts too."""
        if inputs.get("labels") is not None:
            return super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        with torch.no_grad(), self.compute_loss_context_manager():
            outputs = model(**self._prepare_inputs(inputs))
        loss = None if outputs.loss is None else outputs.loss.detach().mean()
        return loss, None if prediction_loss_only else outputs.logits.detach(), None


class TaskAdaptationTrainer(TransferTrainer):
    """Adaptation to a labelled task, with any regulariser against forgetting and negative transfer."""


class DomainAdaptationTrainer(TransferTrainer):
    """Adaptation from a labelled source to an unlabelled target.

    Every batch is half source, half target. Target labels are replaced by -100 before training, so none can be read.
    With `load_best_model_at_end=True` the checkpoint is chosen by `args.validator` on the unlabelled training rows,
    unless `metric_for_best_model` names something else; the evaluation metrics are logged beside it.

    Args:
        model: a Hugging Face model with a linear head, or a PEFT model around one.
        args: TransferConfig; `args.validator` is the name of a label-free score.
        train_dataset: the labelled source; or both domains in one dataset with a `domain` column (0 = source, 1 =
            target).
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
        if validation_rows < 1:
            raise ValueError(f"`validation_rows` should be at least 1, got {validation_rows}.")
        if args.validator not in VALIDATORS:
            raise ValueError(f"unknown validator `{args.validator}`, accepted: {sorted(VALIDATORS)}.")
        module, attribute = VALIDATORS[args.validator].split(":")
        self.validator = getattr(importlib.import_module(module), attribute)
        dataset = join_domains(train_dataset, target_dataset)
        if args.metric_for_best_model in (None, "loss"):
            args.metric_for_best_model = self.validator_metric(args)
            args.greater_is_better = True
        if kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = {}  # evaluation is then the validator alone
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
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        name = self.validator_metric(self.args)
        if metric_key_prefix == "eval" and name not in metrics:
            metrics[name] = self.validate()
            self.log({name: metrics[name]})
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def evaluation_loop(self, dataloader, description: str, *args, metric_key_prefix: str = "eval", **kwargs):
        """Puts the validator's score among the metrics of one dataset before callbacks (early stopping) see them."""
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        if description == "Evaluation" and metric_key_prefix == "eval":
            output.metrics[self.validator_metric(self.args)] = self.validate()
        return output

    def validate(self) -> float:
        """The validator's score of the present model; no target label is read. Higher is better."""
        column = label_column(self.validation_dataset, "validation")
        drop_last, self.args.dataloader_drop_last = self.args.dataloader_drop_last, False
        preprocess, self.preprocess_logits_for_metrics = self.preprocess_logits_for_metrics, None
        self.transfer_model.returns_features = True
        try:
            loader = self.get_test_dataloader(self.validation_dataset.remove_columns(column))
            output = self.evaluation_loop(loader, description="Prediction", prediction_loss_only=False)
        finally:
            self.args.dataloader_drop_last = drop_last
            self.preprocess_logits_for_metrics = preprocess
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
            + (
                ", without target labels."
                if self.args.metric_for_best_model == self.validator_metric(self.args)
                else "."
            )
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
                "one domain is missing: pass `target_dataset`, or a dataset with a `domain` column (0 = source, "
                f"1 = target); this one has {source.column_names}."
            )
        check_not_empty(source, "training")
        domains = column_values(source, "domain")
        check_two_domains(domains)
        column, labels = _labels_of(source, "training")
        labels[domains == TARGET] = IGNORED_LABEL
        return replace_column(without_labels(source), column, labels)
    for name, dataset in (("source", source), ("target", target)):
        check_not_empty(dataset, name)
    column, labels = _labels_of(source, "source")
    unknown = np.full((len(target), *labels.shape[1:]), IGNORED_LABEL).astype(labels.dtype)
    source = replace_column(without_labels(source), column, labels)
    target = replace_column(without_labels(target), column, unknown)
    source = replace_column(source, "domain", np.full(len(source), SOURCE))
    target = replace_column(target, "domain", np.full(len(target), TARGET))
    missing = set(source.column_names) ^ set(target.column_names)
    if missing:
        raise ValueError(f"source and target should have the same columns; these are in one only: {sorted(missing)}.")
    target = target.select_columns(source.column_names).with_format(None)
    joined = concatenate_datasets([source.with_format(None), target.cast(source.features)])
    return joined.with_format(**format_of(source))


def _labels_of(dataset: Dataset, name: str) -> tuple[str, np.ndarray]:
    """The label column and a copy of its values, of a type that can hold `IGNORED_LABEL`."""
    column = label_column(dataset, name)
    values = column_values(dataset, column)
    return column, values.astype(np.int64 if values.dtype.kind in "iub" else values.dtype)
