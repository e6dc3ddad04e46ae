"""What a task is: which Auto class has its head, and how rows become its batches."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any, ClassVar

import torch
import transformers
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.core.task_metrics import METRICS
from hf_transfer.data.class_names import check_label_spaces
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import (
    LabelKind,
    model_labels,
    read_labels,
    read_labels_as,
    with_named_classes,
    with_names_of_several,
)
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.answers import answers_of, metrics_of
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.training.family_trainers import PretrainingTrainer

Metrics = dict[str, float]


class Task:
    """One kind of head. A subclass names it and says where it differs; `hf_transfer.tasks.TASKS` has one of each."""

    name: ClassVar[str]
    """As the Hub's pipeline tag says it."""
    pipeline_tag: ClassVar[str | None] = None
    """What the Hub calls it, where that is another name."""
    adapted_as: ClassVar[str | None] = None
    """Without `reads_labels`: the task that an adaptation of such a model to labelled rows has."""
    reads: ClassVar[str]
    """Kind of input: image, text, image_text, time_series or trajectory."""
    auto_class: ClassVar[str]
    """The class of transformers that loads a model with such a head."""
    reads_labels: ClassVar[bool] = True
    """Whether the rows have labels, whose loss is trained; otherwise the model computes a loss of its own."""
    input_column: ClassVar[str | None] = None
    """Of rows that are model inputs already: the column that shows it is this task's kind of input."""
    saved_as: ClassVar[tuple[str, ...]] = ()
    """Ends of the class names of models that were saved with this head, where these tell the task."""
    labels_parts_of_images: ClassVar[bool] = False
    """Whether labels are of pixels, boxes or points of pictures, which rows tell from classes of pictures."""
    head_on_backbone: ClassVar[str | None] = None
    """The `model_type` that puts such a head on a backbone whose own kind has none."""
    unit_type: ClassVar[str | None] = None
    """Problem type of the units that domain adaptation reads, where it is another than that of the labels."""
    tells_by_pictures: ClassVar[bool] = False
    """Whether predictions are pictures too, see `files`."""
    own_arguments: ClassVar[frozenset[str]] = frozenset()
    """Arguments of the data that this task reads and not every one does."""
    keeps_columns: ClassVar[bool] = False
    """Whether the columns of the prepared rows are no inputs of the model yet."""
    keeps_labels: ClassVar[bool] = False
    """Without `reads_labels`: whether rows keep labels that they have, to be measured by."""
    metrics_read_inputs: ClassVar[bool] = False
    """Whether `label_metrics` reads the main input of the rows too."""
    streams: ClassVar[bool] = True
    """Whether rows can be read as they come."""
    pretrainer: ClassVar[type[PretrainingTrainer]] = PretrainingTrainer
    """Without `reads_labels`: what trains it."""

    def model_class(self) -> Any:
        """The class with `from_pretrained` and, if it is an Auto class, `from_config`."""
        return getattr(transformers, self.auto_class)

    def can_load(self, config: PreTrainedConfig | None) -> bool:
        """Whether there is a model with such a head for a configuration; of one that is not known there may be."""
        return config is None or type(config) in getattr(self.model_class(), "_model_mapping", ())

    def claims(self, rows: Dataset) -> bool:
        """With `labels_parts_of_images`: whether rows as they were read have such labels."""
        return False

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> Any:
        """What reads raw rows, where it is made anew or named by the user; None for the model's own.

        Raises:
            ValueError: it cannot be had.
        """
        return None

    def load_processor(self, model: ModelArguments, config: PreTrainedConfig) -> Any:
        """What the model was saved with to read raw rows, or None."""
        return None

    def sizes(
        self, architecture: Mapping[str, Any], data: DataArguments, rows: list[Dataset], processor: Any
    ) -> dict[str, Any]:
        """The fields of a new model's configuration that follow from data and processor.

        Args:
            architecture: the fields that the user gives.
            data: arguments of the data.
            rows: training rows first, then those of target and test where there are any.
            processor: of `new_processor`.
        """
        return {}

    def as_given(self, rows: Dataset, kind: LabelKind) -> Dataset:
        """Rows whose labels were read, in a form from which they are read alike once more.

        Args:
            rows: arranged, of `read_labels` or `read_labels_as`.
            kind: of their labels.
        """
        return with_named_classes(with_names_of_several(rows, kind), kind)

    def remember(self, model: Any, data: DataArguments, rows: Dataset) -> None:
        """Write into a model's configuration what reading further rows needs to know of the training rows.

        Args:
            model: before training.
            data: arguments of the data.
            rows: arranged, for training.

        Raises:
            ValueError: the model's folder has no place for it.
        """

    def settled(self, data: DataArguments, rows: Dataset) -> DataArguments:
        """The arguments by which test and target rows are read, which may follow from the arranged training rows."""
        return data

    def remembered(self, config: PreTrainedConfig | None) -> dict[str, Any]:
        """The arguments of the data that a saved model's configuration tells, by name."""
        return {}

    def ready_for_features(self, config: PreTrainedConfig) -> None:
        """Write into a model's configuration what its features cannot be read without, where its classes are of no
        use."""

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        """Rows as they were read, in the columns that the other methods of this task expect.

        Args:
            rows: training, target, test or other rows, with labels or without.
            arguments: of the data, which may name columns.
            role: what the rows are for and where they are from, for messages: "training", "test `file.csv`".

        Raises:
            ValueError: rows that are none of this task's; which, is named.
        """
        return rows

    def hold_out(
        self, rows: Dataset, count: int, arguments: DataArguments, role: str
    ) -> tuple[Dataset, Dataset, tuple[int, ...]] | None:
        """What is left of arranged rows, `count` of them to measure on, and the numbers of these, where random rows
        would be no test; None for random rows.

        Raises:
            ValueError: too few rows.
        """
        return None

    def label_column(self, arguments: DataArguments) -> LabelColumn:
        """Of arranged rows the column of labels, where it has none of the usual names, or several."""
        return arguments.label_column

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        """Arranged rows with their labels as numbers, and what the labels are; as `hf_transfer.data.labels`."""
        return read_labels(rows, role, self.label_column(arguments), arguments.problem_type)

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        """What a saved model predicts, as its configuration says, or where that is silent as labelled rows are."""
        return model_labels(config, rows, "evaluation")

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        """Likewise, numbered as the labels of other rows, or of a model."""
        return read_labels_as(rows, kind, role, column, source)

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        """Arranged rows as inputs of a model; arguments as `hf_transfer.data.prepare.prepare` takes them."""
        return prepare(rows, config, processor, **reading)

    def in_units_of(self, config: PreTrainedConfig, rows: Dataset) -> Dataset:
        """Arranged rows with numbers in the units in which a model was trained to tell them."""
        return rows

    def check_domains(
        self, source: Dataset, target: Dataset, kind: LabelKind | None, made_for: Collection[str]
    ) -> None:
        """Raises ValueError where rows of two domains have other classes than the run's methods allow.

        Args:
            source: rows with their labels as numbers.
            target: arranged rows.
            kind: what the source's labels are.
            made_for: `label_space` of the run's objectives.
        """
        check_label_spaces(source, target, made_for)

    def reduced(self, outputs: Any, labels: Any) -> Any:
        """What is kept of a batch's outputs to be measured: `preprocess_logits_for_metrics` of the trainer."""
        return outputs

    def label_metrics(self, config: PreTrainedConfig) -> Callable[[EvalPrediction], Metrics]:
        """With `reads_labels`: `compute_metrics` of the trainer.

        Args:
            config: of the model; a trainer settles the `problem_type` in it before it evaluates anything.
        """
        return metrics_of(config)

    def metrics_of_rows(
        self, config: PreTrainedConfig, rows: Dataset | None, ready: Dataset | None
    ) -> Callable[[EvalPrediction], Metrics]:
        """`label_metrics`, where these read more of the rows than their labels.

        Args:
            config: of the model.
            rows: to evaluate on, as they were arranged; None where there are none.
            ready: the same as inputs of the model.
        """
        return self.label_metrics(config)

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        """The metrics of `label_metrics`, the usual one first."""
        return METRICS[config.problem_type]

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """The columns of a table of predictions.

        Args:
            rows: as they were arranged.
            ready: the same as inputs of the model.
            outputs: what the model gave for them, as the Trainer joins it.
            config: of the model.
        """
        texts = {
            name: list(rows[name])
            for name, feature in rows.features.items()
            if getattr(feature, "dtype", None) in ("string", "large_string")
        }
        logits = torch.as_tensor(outputs).float()
        return {"row": list(range(len(rows))), **texts, **answers_of(logits, config)}

    def files(self, rows: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, Any]:
        """Pictures that tell predictions where a table cannot, by their file names; arguments as of `answers`."""
        return {}

    def collator(self, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
        """What makes a batch of prepared rows; None where the Trainer's own choice is right.

        Args:
            processor: the tokenizer, if any.
            rows: prepared rows.
            pad_token_id: behind tokens that no tokenizer pads.

        Raises:
            ValueError: the processor lacks what the task needs.
        """
        if "past_values" in rows.column_names:
            return PaddingCollator("past_values")
        if isinstance(processor, PreTrainedTokenizerBase):
            return transformers.DataCollatorWithPadding(processor)
        return PaddingCollator("input_ids", pad_token_id or 0) if "input_ids" in rows.column_names else None

    def metrics(
        self, model: Any, processor: Any, rows: Dataset | None, data: DataArguments
    ) -> Callable[[EvalPrediction], Metrics] | None:
        """Without `reads_labels`: `compute_metrics` of the trainer, if it has any.

        Args:
            model: in training.
            processor: of the run.
            rows: to evaluate on, as they were read; None where there are none.
            data: arguments of the data.

        Raises:
            ValueError: an argument out of range.
        """
        return None

    def pretraining_collator(self, processor: Any, data: DataArguments) -> Callable | None:
        """What makes inputs and labels of texts, or hides steps of series, where the arguments or the task say so;
        None for `collator`.

        Raises:
            ValueError: the processor lacks what it needs, or the arguments are wrong.
        """
        return None

    def further_metrics(
        self, model: Any, processor: Any, data: DataArguments, seed: int
    ) -> Callable[[Metrics], Metrics]:
        """What is measured after the evaluation's own metrics, from these.

        Raises:
            ValueError: the model does not fit what it is to be measured on.
        """
        return lambda metrics: {}

    def measured_on(self, metric: str) -> str | None:
        """On what a metric was measured, where that is not the rows."""
        return None
