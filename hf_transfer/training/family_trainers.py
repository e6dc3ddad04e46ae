"""The thin family trainers: what a family has of its own to say over TransferTrainer."""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Mapping
from contextlib import nullcontext
from typing import Any, Protocol

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.utils import logging

from hf_transfer.core.objective import SOURCE, TARGET, Objective
from hf_transfer.core.supervision import FromModel, NoTask
from hf_transfer.core.task_loss import REGRESSION, SINGLE_LABEL, problem_type_of
from hf_transfer.data.checks import check_domain_sizes, column_values, label_column, label_numbers
from hf_transfer.data.class_names import check_label_spaces
from hf_transfer.data.conversion import as_dataset
from hf_transfer.data.domain_rows import hold_out_source, join_domains
from hf_transfer.data.packing import PackingCollator
from hf_transfer.data.streams import DomainStream, is_stream
from hf_transfer.data.text_collator import TextCollator
from hf_transfer.domain_adaptation.label_shift import LabelShift
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.packing import check_packing
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.training.best_metric import close_prediction_bar, evaluation_sets
from hf_transfer.training.collapse import GAUGES, CollapseGauges, is_collapsed
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_model import TransferModel
from hf_transfer.training.unit_outputs import unit_outputs
from hf_transfer.validators import WORKING, choose_validator, find_validator

logger = logging.get_logger(__name__)


class Probes(Protocol):
    """What a pre-training asks of transfer probes; theirs is the ranking, which no other training has to import."""

    names: list[str]

    def measure(self, model: PreTrainedModel | PeftModel) -> dict[str, float]: ...


class PretrainingTrainer(TransferTrainer):
    """Pre-training: the loss is the one the model returns (masked images, or what a collator makes of texts).

    A backbone without a head has none and is trained by the objectives alone; where these compare views of unlabelled
    rows, every evaluation logs gauges of collapse (`hf_transfer.functional.collapse`), and `args.stop_on_collapse`
    ends a training that collapses.

    Args:
        model: a Hugging Face or PEFT model.
        args: TransferConfig.
        transfer_probes: what the features are worth on small labelled target sets, logged at every evaluation: a
            `hf_transfer.training.transfer_probes.TransferProbes`.
        kwargs: everything else TransferTrainer takes.

    Raises:
        ValueError: `stop_on_collapse` without such an objective; the model does not take what a collator makes of
            texts, or does not keep packed documents apart; and all that TransferTrainer raises.
    """

    task_loss = FromModel

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | TransferModel,
        args: TransferConfig,
        *,
        transfer_probes: Probes | None = None,
        **kwargs: Any,
    ):
        if transfer_probes is not None and kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = {}  # evaluation is then the probes alone
        super().__init__(model, args, **kwargs)
        self.transfer_probes = transfer_probes
        if transfer_probes is not None:
            transfer_probes.measure(self.adapted_model)  # what cannot be measured is said before the training
        collator = self.data_collator
        if isinstance(collator, TextCollator):
            collator.check_model(unwrap_peft(self.adapted_model))
        if isinstance(collator, PackingCollator):
            check_packing(self.adapted_model)
        can_collapse = any(one.can_collapse for one in self.transfer_model.objectives.values())
        if self.args.stop_on_collapse and not can_collapse:
            raise ValueError("`stop_on_collapse` is for self-supervised objectives, such as simsiam: leave it out.")
        self.collapse_gauges = CollapseGauges(self.transfer_model, self._gathered_rows) if can_collapse else None

    @property
    def own_metrics(self) -> list[str]:
        probes = [] if self.transfer_probes is None else [f"eval_{name}" for name in self.transfer_probes.names]
        gauges = () if self.collapse_gauges is None else GAUGES
        return probes + [f"{prefix}_{name}" for prefix in evaluation_sets(self.eval_dataset) for name in gauges]

    def evaluate(self, eval_dataset=None, ignore_keys=None, metric_key_prefix: str = "eval") -> dict[str, float]:
        """As the Trainer's, with the transfer probes beside it where there are any."""
        metrics = super().evaluate(eval_dataset, ignore_keys, metric_key_prefix)
        known = self.transfer_probes is None or f"eval_{self.transfer_probes.names[0]}" in metrics
        if metric_key_prefix == "eval" and not known:  # there are no rows to evaluate on, or several sets of them
            probed = self._probed()
            metrics |= probed
            self.log(probed)
            self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _probed(self) -> dict[str, float]:
        return {f"eval_{name}": value for name, value in self.transfer_probes.measure(self.adapted_model).items()}

    def _gathered_rows(self, rows: Tensor) -> Tensor:
        return self.accelerator.gather_for_metrics(rows)

    def evaluation_loop(self, dataloader, description: str, *args, metric_key_prefix: str = "eval", **kwargs):
        """As the Trainer's, with the transfer probes, and gauges of collapse where features train without labels."""
        is_evaluation = description == "Evaluation"
        is_probed = is_evaluation and self.transfer_probes is not None and metric_key_prefix == "eval"
        probed = self._probed() if is_probed else {}
        gauges = self.collapse_gauges if is_evaluation else None
        with nullcontext() if gauges is None else gauges:
            output = super().evaluation_loop(
                dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs
            )
        found = {} if gauges is None else gauges.metrics(metric_key_prefix)
        output.metrics.update({**probed, **found})
        if found and self.args.stop_on_collapse and is_collapsed(*found.values()) and self.is_in_train:
            logger.warning("the training ends here, as `stop_on_collapse` says.")
            self.control.should_training_stop = True
        return output

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As the Trainer's, but a loss that needs no labels (masked images) counts too, and so does none at all."""
        has_task = not isinstance(self.transfer_model.supervision, NoTask)
        if has_task and inputs.get("labels") is not None:
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
    Where no objective or converter reads a batch, the model is trained on the source's half alone (source only): batch
    norms then know nothing of the target, and no step is spent on it.
    With `load_best_model_at_end=True` the checkpoint is chosen by `args.validator` on the unlabelled training rows,
    unless `metric_for_best_model` names something else; the evaluation metrics are logged beside it.

    Args:
        model: a Hugging Face model with a linear head, or a PEFT model around one.
        args: TransferConfig; `args.validator` is the name of a label-free score.
        train_dataset: the labelled source; or both domains in one dataset with a `domain` column (0 = source, 1 =
            target).
        target_dataset: the target; its labels, if it has any, are not used. Both may be an `IterableDataset`, of
            which the first `validation_rows` go into the validator.
        validation_rows: at most this many rows of each domain go into the validator; replaces `args.validation_rows`.
        kwargs: everything else TransferTrainer takes.

    Raises:
        ValueError: one domain is missing, empty or smaller than half a batch, the target has other classes than the
            source, an unknown validator, one that cannot score what the model predicts, and all that TransferTrainer
            raises.

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
        validation_rows: int | None = None,
        **kwargs: Any,
    ):
        limit = args.validation_rows if validation_rows is None else validation_rows
        if limit < 1:
            raise ValueError(f"`validation_rows` should be at least 1, got {limit}.")
        readout = kwargs.get("readout") or args.readout
        chosen = model.readout if isinstance(model, TransferModel) else choose_readout(model, readout)
        if is_stream(train_dataset, target_dataset):
            if not chosen.units_are_rows:
                raise ValueError("a stream hides labels of whole target rows alone: give datasets for parts of rows.")
            dataset = stream_of_domains(train_dataset, target_dataset, args)
            known = validation = dataset.first_rows(limit)
        else:
            train_dataset = as_dataset(train_dataset, "train_dataset")
            if target_dataset is not None:
                target_dataset = as_dataset(target_dataset, "target_dataset")
            both = join_domains(train_dataset, target_dataset, chosen.ignored_part)
            dataset, validation = hold_out_source(both, args.source_holdout, args.seed)
            known = dataset
        self.problem_type = chosen.problem_type  # of parts of rows
        if chosen.ignored_part is None:
            labels = label_numbers(known, label_column(known, "training"), "training")
            self.problem_type = what_is_predicted(model, labels)
        args.validator = choose_validator(args.validator, self.problem_type)
        self.validator = find_validator(args.validator)
        if args.metric_for_best_model in (None, "loss"):
            args.metric_for_best_model = self.validator_metric(args)
            args.greater_is_better = True
        if kwargs.get("eval_dataset") is None:
            kwargs["eval_dataset"] = {}  # evaluation is then the validator alone
        super().__init__(model, args, train_dataset=dataset, objectives=objectives, **kwargs)
        self.validation_dataset = self._validation_rows(validation, limit)
        self.label_shift: LabelShift | None = None
        self.keeps_outputs = False
        self.kept_outputs: tuple[Tensor, Tensor, Tensor, Tensor] | None = None
        """Those of `validation_outputs` while `keeps_outputs`: from when on the model no longer changes."""
        if target_dataset is not None and known is dataset:
            made_for = {one.label_space for one in self.transfer_model.objectives.values()}
            check_label_spaces(train_dataset, target_dataset, made_for)
        # all processes together: a statistic of the batch counts a row that two of them hold twice
        if known is dataset:
            check_domain_sizes(column_values(dataset, "domain"), args.train_batch_size * args.world_size // 2)
        half = args.per_device_train_batch_size // 2
        target = ", which is left out, as nothing reads it: this is source only" if self.is_source_only else ""
        logger.warning(
            f"Every batch of {args.per_device_train_batch_size} rows is {half} of the source and {half} of the target"
            f"{target}."
        )

    @property
    def is_source_only(self) -> bool:
        """Whether no objective or converter reads the batches, so that their unlabelled rows are left out."""
        if self.args.train_sampling_strategy != "random":
            return False  # a batch may have no row of the source
        return not self.transfer_model.sidecars and not self.transfer_model.needs - {"weights"}

    @property
    def left_out_domains(self) -> tuple[int, ...]:
        return (TARGET,) if self.is_source_only else ()

    def _get_dataloader(
        self, dataset: Any, description: str, batch_size: int, *args: Any, is_training: bool = False, **kwargs: Any
    ) -> DataLoader:
        """As the Trainer's; for source only, of the source's half of every batch."""
        if is_training and self.is_source_only:
            batch_size //= 2
            if isinstance(dataset, DomainStream):
                dataset.reads_target = False
        return super()._get_dataloader(dataset, description, batch_size, *args, is_training=is_training, **kwargs)

    @property
    def own_metrics(self) -> list[str]:
        return [self.validator_metric(self.args)]

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

    def correct_label_shift(self, shift: LabelShift) -> None:
        """Weigh source rows by their class, in the task loss and in objectives that say so, and have validators ask
        for the estimated class shares in place of even ones. Before the training.

        Args:
            shift: of these classes.

        Raises:
            ValueError: as `check_label_shift`, or other classes.
        """
        self.check_label_shift()
        if len(shift.weights) != self.transfer_model.config.num_labels:
            raise ValueError(
                f"class shares of {len(shift.weights)} classes, and the model has "
                f"{self.transfer_model.config.num_labels}."
            )
        self.label_shift = shift
        self.transfer_model.class_weights = shift.weights.float().to(self.transfer_model.device)

    def check_label_shift(self) -> None:
        """Raises ValueError where class shares have no meaning, or an objective is made for other shares."""
        model = self.transfer_model
        if self.problem_type != SINGLE_LABEL or not model.readout.units_are_rows or not model.reads_labels:
            what = "parts of rows" if not model.readout.units_are_rows else self.problem_type
            raise ValueError(
                f"`label_shift: correct` estimates how many rows are of each class, and this task is {what}: it is "
                "for rows with one class each. Leave it out."
            )
        other = sorted(name for name, one in model.objectives.items() if one.label_space != "closed")
        if other:
            raise ValueError(
                f"`label_shift: correct` is for a target with the source's classes, and {other} "
                f"{'are' if len(other) > 1 else 'is'} made for one that lacks some or has others: leave one of both "
                "out."
            )

    @property
    def prior(self) -> Tensor | None:
        """[C], the class shares that predictions on the target should have; None for even ones."""
        return None if self.label_shift is None else self.label_shift.prior

    def validate(self) -> float:
        """The validator's score of the present model; no target label is read. Higher is better."""
        return score(self.validator, self.validation_outputs(), self.problem_type, self.prior)

    def validate_by_all(self, outputs: tuple[Tensor, Tensor, Tensor, Tensor] | None = None) -> dict[str, float]:
        """The score of every validator that is defined for the problem type, of one pass over the rows; those that the
        data does not allow are left out.

        Args:
            outputs: of `validation_outputs`, where they are at hand.
        """
        outputs, scores = self.validation_outputs() if outputs is None else outputs, {}
        for name in sorted(WORKING[self.problem_type]):
            try:
                scores[name] = score(find_validator(name), outputs, self.problem_type, self.prior)
            except ValueError as error:
                logger.info(f"the validator `{name}` cannot be computed: {error}")
        return scores

    def validation_outputs(self, rows: Dataset | None = None) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """What a validator reads: features [N, D], logits [N, C], domain [N] and labels [N], all -100 on the target.

        They are of tokens or pixels where the readout's units are, see `unit_outputs`.

        Args:
            rows: some of the validation rows; all of them when left out.
        """
        if rows is None and self.kept_outputs is not None:
            return self.kept_outputs
        outputs = self._outputs_of(self.validation_dataset if rows is None else rows)
        if rows is None and self.keeps_outputs:
            self.kept_outputs = outputs
        return outputs

    def train(self, *args: Any, **kwargs: Any):
        """As TransferTrainer's; what was kept of the model before is forgotten."""
        self.keeps_outputs, self.kept_outputs = False, None
        return super().train(*args, **kwargs)

    def _outputs_of(self, rows: Dataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        if self.transfer_model.readout.units_are_rows:
            return self._outputs_of_rows(rows)
        self.transfer_model.returns_features = True
        try:
            return unit_outputs(self, rows)
        finally:
            self.transfer_model.returns_features = False

    def _outputs_of_rows(self, rows: Dataset) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        column = label_column(rows, "validation")
        preprocess, self.preprocess_logits_for_metrics = self.preprocess_logits_for_metrics, None
        joins, self.args.eval_do_concat_batches = self.args.eval_do_concat_batches, True
        self.transfer_model.returns_features = True
        close_prediction_bar(self)
        try:
            loader = self.get_test_dataloader(rows.remove_columns(column))
            output = self.evaluation_loop(loader, description="Prediction", prediction_loss_only=False)
        finally:
            self.preprocess_logits_for_metrics = preprocess
            self.args.eval_do_concat_batches = joins
            self.transfer_model.returns_features = False
            close_prediction_bar(self)
        logits, features = (torch.from_numpy(values) for values in output.predictions)
        domain = torch.from_numpy(column_values(rows, "domain"))
        labels = torch.from_numpy(column_values(rows, column))
        if self.problem_type == REGRESSION:
            labels = labels.to(logits.dtype)  # they may be whole numbers
        return features, logits, domain, labels

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


def what_is_predicted(model: PreTrainedModel | PeftModel | TransferModel, labels: np.ndarray) -> str:
    """The problem type of the model on these labels, [N] or [N, C]: a key of `hf_transfer.validators.WORKING`."""
    return problem_type_of(model.config, labels, "the labels of the training dataset")


def score(
    validator: Callable[..., float],
    outputs: tuple[Tensor, Tensor, Tensor, Tensor],
    problem_type: str | None = None,
    prior: Tensor | None = None,
) -> float:
    """What the validator says of a model's outputs; minus infinity where training has diverged.

    A score that is not a number would stay the best for ever: nothing is greater. Logits of -inf are no divergence: a
    model rules classes out by them, though not all of a row's.
    """
    features, logits = outputs[:2]
    ruled_out = logits == -math.inf
    if not features.isfinite().all() or not (logits.isfinite() | ruled_out).all() or ruled_out.all(dim=1).any():
        return -math.inf
    known = {"problem_type": problem_type, "prior": prior}
    read = {name: value for name, value in known.items() if name in inspect.signature(validator).parameters}
    value = float(validator(*outputs, **read))
    return -math.inf if math.isnan(value) else value


def stream_of_domains(source: Any, target: Any, args: TransferConfig) -> DomainStream:
    """Two streams as one.

    Raises:
        ValueError: only one of them is a stream, rows are to be held out, and as DomainStream.
    """
    if not (is_stream(source) and is_stream(target)):
        raise ValueError(
            "source and target should both be streams (`dataset.to_iterable_dataset()`), or both datasets."
        )
    if args.source_holdout:
        raise ValueError("`source_holdout` draws rows by number, which those of a stream have not: leave it out.")
    return DomainStream(source, target, args.per_device_train_batch_size)
