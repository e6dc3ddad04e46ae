"""TransferConfig and TransferTrainer: one Trainer for every objective on any Hugging Face model."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, ClassVar

import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from torch.utils.data import DataLoader
from transformers import PreTrainedModel
from transformers.trainer_pt_utils import find_batch_size
from transformers.utils import logging

from hf_transfer.core.diverged import TrainingDiverged, at_step, infinite_terms
from hf_transfer.core.objective import Objective
from hf_transfer.core.readout import Readout
from hf_transfer.core.supervision import TaskLoss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.checks import (
    LABEL_COLUMNS,
    check_environments,
    check_labels,
    check_not_empty,
    check_rows_of_domains,
    check_two_domains,
    check_unit_labels,
    column_values,
    label_column,
    label_numbers,
)
from hf_transfer.data.conversion import as_dataset, evaluation_rows
from hf_transfer.data.label_sets import LabelSetCollator, label_tables
from hf_transfer.data.samplers import ShuffleSampler
from hf_transfer.data.streams import RowStream, check_stream, is_stream
from hf_transfer.data.visits import NumberingCollator, VisitedRows, VisitSampler
from hf_transfer.modeling.anatomy import is_backbone, layer_indices
from hf_transfer.modeling.processors import check_same_processor
from hf_transfer.task_adaptation.schedule import make_schedules
from hf_transfer.training.best_metric import watch_best_metric
from hf_transfer.training.checkpoints import (
    check_record,
    check_resumable,
    check_writable,
    is_finished,
    last_complete_checkpoint,
)
from hf_transfer.training.constant_copies import CONSTANTS_FILE, checksum_in
from hf_transfer.training.constant_rates import hold_constant_groups, split_constant_groups
from hf_transfer.training.early_stopping import early_stopping
from hf_transfer.training.evaluation_loss import EvaluationLoss
from hf_transfer.training.hyper_rule import apply_hyper_rule
from hf_transfer.training.layer_freezing import LayerFreezing
from hf_transfer.training.layer_rates import parameter_groups
from hf_transfer.training.muon import NAME as MUON
from hf_transfer.training.muon import muon_groups
from hf_transfer.training.objectives import check_whole_weights, label_sets_of
from hf_transfer.training.reading_trainer import ReadingTrainer
from hf_transfer.training.silent_terms import tell_silent_terms
from hf_transfer.training.steps import steps_for
from hf_transfer.training.trainer_arguments import (
    check_given_optimizer,
    check_ready_model,
    check_trainer_arguments,
    check_trains,
    check_whole_batches,
)
from hf_transfer.training.transfer_callback import TransferCallback
from hf_transfer.training.transfer_config import TransferConfig, torch_optimizer
from hf_transfer.training.transfer_model import TransferModel, TransferOutput, make_objectives
from hf_transfer.tuners import adapter_callbacks

logger = logging.get_logger(__name__)


class TransferTrainer(ReadingTrainer):
    """`transformers.Trainer` over a TransferModel: any Hugging Face model, any objectives, with or without PEFT.

    Checkpoints are ordinary Hugging Face folders plus `objectives.safetensors`, and a resumed run equals a straight
    one. Evaluation computes the task loss and the metrics alone.

    Args:
        model: a Hugging Face model with a linear head, a PEFT model around one, or a ready TransferModel.
        args: a TransferConfig.
        objectives: named objectives or their keywords; replaces `args.objectives`.
        readout: what of the model's outputs the objectives see; chosen by the model when left out.
        train_dataset: a `datasets.Dataset` of model inputs and labels; with a column `sampling_weight` its rows are
            drawn with replacement in proportion to it.
        kwargs: everything else `Trainer` takes.

    Raises:
        ValueError: empty dataset, no label column, a label outside the classes, no linear head, an unknown objective.
        TypeError: an unknown keyword of an objective, arguments of another type, or `model_init` in place of a model.
    """

    # The loss is a mean over the micro-batch, so the Trainer has to divide by the number of micro-batches.
    loss_is_scaled_for_ga = False
    task_loss: ClassVar[type[TaskLoss] | None] = None
    """Where the loss of the task comes from; None chooses by the model, see TransferModel."""

    def __init__(
        self,
        model: PreTrainedModel | PeftModel | TransferModel | None = None,
        args: TransferConfig | None = None,
        *,
        objectives: Mapping[str, Objective | Mapping[str, Any] | None] | None = None,
        readout: Readout | str | None = None,
        train_dataset: Dataset | None = None,
        **kwargs: Any,
    ):
        if not isinstance(args, TransferConfig):
            raise TypeError(f"`args` should be a TransferConfig, got {type(args).__name__}.")
        check_trainer_arguments(model, kwargs)
        check_writable(args.output_dir)
        readout = args.readout if readout is None else readout
        if not isinstance(model, TransferModel):
            made = make_objectives(args.objectives if objectives is None else objectives)
            # a backbone without a head has no loss of its own
            task_loss = None if self.task_loss is None or is_backbone(model) else self.task_loss()
            smoothing = args.label_smoothing_factor
            model = TransferModel(model, made, readout, task_loss=task_loss, label_smoothing=smoothing)
        else:
            check_ready_model(model, args, objectives, readout)
        args.label_names = args.label_names or ["labels"]
        self.known_rows: Dataset | None = None
        """The training set; of a stream its first rows."""
        if train_dataset is not None:
            train_dataset = self._as_training_rows(train_dataset, model, args)
            self.check_dataset(model, self.known_rows)
            check_trains(model)
            check_whole_batches(args, model, self.known_rows.column_names)
            apply_hyper_rule(args, None if train_dataset is not self.known_rows else len(train_dataset))
            check_rows_of_domains(model.objectives, self.known_rows, args)
        kwargs["eval_dataset"] = evaluation_rows(kwargs.get("eval_dataset"))
        self.check_evaluation_datasets(model, kwargs.get("eval_dataset"))
        if args.device.type == "cpu":
            args.dataloader_pin_memory = False  # there is nothing to pin it for, and torch would warn at every loader
        if args.n_gpu > 1:
            # Its threads would share the hook that reads the features.
            logger.warning("DataParallel is not supported: one GPU is used. `accelerate launch` uses all of them.")
            args._n_gpu = 1
        if args.torch_optimizer is not None:
            kwargs.setdefault("optimizer_cls_and_kwargs", torch_optimizer(args))
        model.objective_warmup = args.objective_warmup
        model.task_loss_weight = args.task_loss_weight
        if isinstance(train_dataset, RowStream) and model.reads_labels and model.readout.units_are_rows:
            is_class = model.config.problem_type == SINGLE_LABEL
            train_dataset.classes = model.config.num_labels if is_class else None
        self.transfer_model = model
        self.schedules = make_schedules(args.schedules, args.layer_learning_rate_decay, args.backbone_freeze_ratio)
        self.layer_freezing = LayerFreezing(model.model, self.schedules, skips_backward=args.world_size == 1)
        self.train_sampler: ShuffleSampler | VisitSampler | None = None
        self._term_sums: dict[str, Tensor] = {}
        self._ever: dict[str, Tensor] = {}
        self._evaluation_loss = EvaluationLoss()
        self._term_counts: dict[str, int] = defaultdict(int)
        check_given_optimizer((kwargs.get("optimizers") or (None, None))[0], model, args)
        super().__init__(model=model, args=args, train_dataset=train_dataset, **kwargs)
        self.steps = steps_for(self)
        check_whole_weights(model.objectives, getattr(self.accelerator.state, "deepspeed_plugin", None))
        self.check_processors()
        for objective in model.objectives.values() if train_dataset is not None else ():
            objective.check_batch(self._train_batch_size * args.world_size)
        self.train_collator = self._with_label_sets(self._choose_train_collator())
        self.resumed_from: str | None = None
        if args.push_to_hub:
            self.check_publishable()
        early = early_stopping(args.early_stopping_patience)
        for callback in (TransferCallback(self), *early, *adapter_callbacks(model.model)):
            self.add_callback(callback)

    @property
    def adapted_model(self) -> PreTrainedModel | PeftModel:
        """The Hugging Face (or PEFT) model in training, without the objectives."""
        return self.transfer_model.model

    @property
    def own_metrics(self) -> list[str]:
        """The names of what evaluations have beside the loss and what `compute_metrics` gives."""
        return []

    def _as_training_rows(self, rows: Any, model: TransferModel, args: TransferConfig) -> Dataset | RowStream:
        """The training set as it is read, and what is known of it before."""
        if not is_stream(rows):
            self.known_rows = as_dataset(rows, "train_dataset")
            return self.known_rows
        check_stream(args, model.objectives)
        stream = rows if isinstance(rows, RowStream) else RowStream(rows)
        self.known_rows = stream.first_rows()
        return stream

    def check_dataset(self, model: TransferModel, dataset: Dataset) -> None:
        """Refuse a training set that the model or the objectives cannot use, before anything long starts."""
        check_not_empty(dataset, "training")
        if "domain" in model.needs:
            if "domain" not in dataset.column_names:
                raise ValueError(
                    "these objectives compare two domains and the training dataset has no `domain` column "
                    f"(0 = source, 1 = target); it has {dataset.column_names}."
                )
            check_two_domains(column_values(dataset, "domain"))
        if "environments" in model.needs:
            check_environments(dataset)
        label_tables(dataset, label_sets_of(model.objectives))
        if model.reads_labels:
            self._check_labels(model, dataset, "training")

    def check_processors(self) -> None:
        """Refuse models beside the one in training that read other inputs than it does."""
        for objective in self.transfer_model.objectives.values():
            for folder in getattr(objective, "member_folders", ()):
                check_same_processor(folder, self.processing_class)

    def check_evaluation_datasets(self, model: TransferModel, dataset: Any) -> None:
        """Refuse an evaluation set that is empty or has labels the model does not know."""
        named = {f"evaluation ({name})": one for name, one in dataset.items()} if isinstance(dataset, dict) else {}
        for name, one in (named or {"evaluation": dataset}).items():
            if not isinstance(one, Dataset):
                continue
            check_not_empty(one, name)
            if model.reads_labels and any(column in one.column_names for column in LABEL_COLUMNS):
                self._check_labels(model, one, name)

    def _check_labels(self, model: TransferModel, dataset: Dataset, name: str) -> None:
        column = label_column(dataset, name)
        if not model.readout.units_are_rows:
            check_unit_labels(dataset, column, model.config.num_labels, name)
            return
        values = label_numbers(dataset, column, name)
        problem_type = model.settle_problem_type(values, f"column `{column}` of the {name} dataset")
        check_labels(dataset, column, problem_type, model.config.num_labels, name)

    # Training.

    def train(self, resume_from_checkpoint: str | bool | None = None, **kwargs: Any):
        """Train; `resume_from_checkpoint=True` goes on from the newest complete checkpoint, if there is one."""
        check_resumable(self.args, getattr(self.accelerator.state, "fsdp_plugin", None))
        if resume_from_checkpoint is True:
            resume_from_checkpoint = last_complete_checkpoint(self.args.output_dir)
        self.resumed_from = resume_from_checkpoint or None
        if resume_from_checkpoint:
            check_record(resume_from_checkpoint, self.record)
            is_whole_here = not (self.is_fsdp_enabled or self.is_deepspeed_enabled)
            if is_whole_here and is_finished(resume_from_checkpoint, self.args):
                return self._finished(resume_from_checkpoint)
        else:
            self._prepare_objectives()
        model = self.transfer_model
        model.constants_checksum = self._constants_of(resume_from_checkpoint) if resume_from_checkpoint else None
        try:
            self._ever.clear()
            made = super().train(resume_from_checkpoint=resume_from_checkpoint or None, **kwargs)
            tell_silent_terms(self._ever, self.accelerator)
            return made
        finally:
            model.constants_checksum = None  # what is saved from now on stands alone

    def _constants_of(self, checkpoint: str) -> str | None:
        """The checksum of the frozen copies beside a checkpoint of this run's folder."""
        folder = Path(checkpoint).resolve().parent
        return checksum_in(folder / CONSTANTS_FILE) if folder == Path(self.args.output_dir).resolve() else None

    def _prepare_objectives(self) -> None:
        for objective in self.transfer_model.objectives.values():
            if type(objective).prepare is not Objective.prepare:
                objective.prepare(self.adapted_model, self._plain_dataloader("row_numbers" in objective.needs))

    def _plain_dataloader(self, numbered: bool = False) -> DataLoader:
        """All training rows as they are, in the same random order on every process, so that all measure the same.

        Args:
            numbered: with the numbers of the rows, where training has them.
        """
        rows = self._remove_unused_columns(self.train_dataset)
        sampler, collator = ShuffleSampler(len(self.train_dataset), self.data_seed), self.data_collator
        trains = self.train_collator
        trains = trains.collator if isinstance(trains, LabelSetCollator) else trains
        if numbered and isinstance(trains, NumberingCollator):
            rows, sampler, collator = VisitedRows(rows), VisitSampler(sampler), trains
        return DataLoader(
            rows,
            batch_size=self._train_batch_size,
            sampler=sampler,
            collate_fn=collator,
            num_workers=self.args.dataloader_num_workers,
        )

    def compute_loss(
        self,
        model: nn.Module,
        inputs: dict[str, Tensor],
        return_outputs: bool = False,
        num_items_in_batch: Tensor | int | None = None,
    ) -> Tensor | tuple[Tensor, TransferOutput]:
        """The TransferModel's loss: task plus weighted objectives in training, task alone in evaluation.

        The Trainer averages over micro-batches and processes. Dividing each task loss by their mean number of items
        gives every one the same weight, as in one large batch.
        """
        if model.training and num_items_in_batch is not None:
            processes = self.args.world_size if self.args.average_tokens_across_devices else 1
            share = num_items_in_batch / (self.current_gradient_accumulation_steps * processes)
            inputs = {**inputs, "items_per_batch": share}
        outputs = model(**inputs)
        if outputs.loss is None:
            raise ValueError(f"the batch has no labels, only {sorted(inputs)}: the task loss needs a `labels` column.")
        for name, value in (outputs.losses or {}).items():
            self._term_sums[name] = self._term_sums.get(name, 0.0) + value
            self._term_counts[name] += 1
            if name != self.transfer_model.empty_term:
                self._ever[name] = (value != 0) | self._ever.get(name, value != 0)
        return (outputs.loss, outputs) if return_outputs else outputs.loss

    def prediction_step(self, model, inputs, prediction_loss_only, ignore_keys=None):
        """As the Trainer's, which remembers the loss of the batch and over how many items it is a mean."""
        found = super().prediction_step(model, inputs, prediction_loss_only, ignore_keys)
        self._evaluation_loss.add(found[0], self.transfer_model.loss_items.count(inputs), find_batch_size(inputs))
        return found

    def evaluation_loop(self, dataloader, description: str, *args, metric_key_prefix: str = "eval", **kwargs):
        """As the Trainer's, with a loss in which every item counts the same."""
        self._evaluation_loss = EvaluationLoss()
        output = super().evaluation_loop(dataloader, description, *args, metric_key_prefix=metric_key_prefix, **kwargs)
        mean = self._evaluation_loss.mean(self.accelerator)
        if mean is not None and f"{metric_key_prefix}_loss" in output.metrics:
            output.metrics[f"{metric_key_prefix}_loss"] = mean
        return output

    def _get_num_items_in_batch(self, batch_samples: list[dict[str, Tensor]], device: torch.device) -> Tensor | None:
        """Of all processes, the number of items over which the task loss is a mean."""
        total = self.transfer_model.loss_items.total(batch_samples, device)
        is_of_all = self.args.average_tokens_across_devices and self.args.world_size > 1
        return self.accelerator.gather(total).sum() if total is not None and is_of_all else total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Adds the mean of every unweighted term since the last log, as `loss_<name>`, where there are several."""
        if "loss" in logs:
            for name, total in self._term_sums.items() if len(self._term_sums) > 1 else ():
                mean = self.accelerator.reduce(total / self._term_counts[name], reduction="mean")
                logs[f"loss_{name}"] = round(mean.item(), 6)
            self._term_sums.clear()
            self._term_counts.clear()
        super().log(logs, start_time)

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """A step as the objectives ask for it, see `hf_transfer.training.steps`."""
        return self.steps(self._backward, model, inputs, num_items_in_batch)

    def _backward(self, *batch: Any) -> Tensor:
        """As the Trainer's step; layers that are frozen now keep no gradient, so that neither clipping nor the
        optimizer sees one."""
        try:
            loss = super().training_step(*batch)
            # In float16 the scaler of gradients passes such a step over by itself.
            if self.accelerator.scaler is None and not torch.isfinite(loss):
                raise infinite_terms(loss, self._term_sums)
        except TrainingDiverged as error:
            last = last_complete_checkpoint(self.args.output_dir)
            raise at_step(error, self.state.global_step + 1, last) from error
        self.layer_freezing.drop_gradients()
        return loss

    def create_optimizer(self, model: nn.Module | None = None) -> torch.optim.Optimizer:
        """The Trainer's optimizer, with rates of their own for head and layers when the config asks for them."""
        is_new = self.optimizer is None
        is_muon = self.args.torch_optimizer == MUON
        if is_new and (is_muon or self.args.head_learning_rate_multiplier != 1.0 or self.schedules):
            target = self.model if model is None else model
            cls, keywords = self.optimizer_cls_and_kwargs or self.get_optimizer_cls_and_kwargs(self.args, target)
            groups = self.parameter_groups(target)
            groups = muon_groups(self.adapted_model, groups) if is_muon else groups
            self.optimizer = cls(groups, **keywords)
        optimizer = super().create_optimizer(model)
        if is_new:
            split_constant_groups(optimizer, self._constant_rate_parameters())
        return optimizer

    def _constant_rate_parameters(self) -> list[nn.Parameter]:
        objectives = self.transfer_model.objectives.values()
        return [parameter for one in objectives for parameter in one.constant_rate_parameters()]

    def create_scheduler(
        self, num_training_steps: int, optimizer: torch.optim.Optimizer | None = None
    ) -> torch.optim.lr_scheduler.LRScheduler:
        """The Trainer's scheduler, or what one of the schedules says of the rate over time."""
        is_new = self.lr_scheduler is None
        timed = next((one for one in self.schedules if one.sets_rate_over_time), None)
        if is_new and timed is not None:
            self.lr_scheduler = torch.optim.lr_scheduler.LambdaLR(
                self.optimizer if optimizer is None else optimizer,
                lambda step: timed.rate_over_time(step, num_training_steps),
            )
            self._created_lr_scheduler = True
        watch_best_metric(self.args)
        scheduler = super().create_scheduler(num_training_steps, optimizer)
        if is_new and self._constant_rate_parameters():
            hold_constant_groups(scheduler)
        return scheduler

    def parameter_groups(self, model: nn.Module) -> list[dict[str, Any]]:
        """The backbone, layer by layer where these have rates of their own, and the rest; with and without decay."""
        args, decayed = self.args, set(self.get_decay_parameter_names(model))
        indices = {f"model.{name}": index for name, index in layer_indices(self.adapted_model).items()}
        return parameter_groups(model, indices, decayed, args, self.schedules, args.head_learning_rate_multiplier)

    # Folders.

    def _load_from_checkpoint(self, resume_from_checkpoint: str, model: nn.Module | None = None) -> None:
        if self.is_fsdp_enabled:
            super()._load_from_checkpoint(resume_from_checkpoint, model)
        else:
            self.transfer_model.load_weights(resume_from_checkpoint)

    def _load_best_model(self) -> None:
        logger.info(f"Loading {self.state.best_model_checkpoint} (best score {self.state.best_metric}).")
        if self.is_fsdp_enabled:
            super()._load_best_model()
        else:
            self.transfer_model.load_weights(self.state.best_model_checkpoint)
