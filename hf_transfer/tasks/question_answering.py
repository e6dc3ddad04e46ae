"""Question answering: the part of a context that answers a question, or that there is none."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np
from datasets import Dataset
from transformers import EvalPrediction, PreTrainedConfig

from hf_transfer.data.answer_windows import NO_ANSWER, OFFSETS, ROW, answer_windows
from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.label_columns import LabelColumn
from hf_transfer.data.labels import LabelKind
from hf_transfer.data.questions import ANSWERS, CONTEXT, ID_COLUMN, LABEL_COLUMN, QUESTION, SpanKind, with_answers
from hf_transfer.data.text_length import check_vocabulary, reading_length
from hf_transfer.data.word_tokens import check_tokenizer
from hf_transfer.evaluation.spans import SPAN_METRICS, Answer, best_answers, span_metrics
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.tasks.task import Metrics
from hf_transfer.tasks.text import TextTask


class QuestionAnswering(TextTask):
    """A score of every token as the first and as the last one of the answer, trained by the cross-entropy of both."""

    name = "question-answering"
    auto_class = "AutoModelForQuestionAnswering"
    saved_as = ("ForQuestionAnswering", "ForQuestionAnsweringSimple")
    streams = False

    def claims(self, rows: Dataset) -> bool:
        return {QUESTION, CONTEXT, ANSWERS} <= set(rows.column_names)

    def new_processor(self, model: ModelArguments, data: DataArguments, rows: Dataset) -> Any:
        if isinstance(model.tokenizer, Mapping):
            return train_bpe((text for name in (QUESTION, CONTEXT) for text in rows[name]), **model.tokenizer)
        return super().new_processor(model, data, rows)

    def arranged(self, rows: Dataset, arguments: DataArguments, role: str) -> Dataset:
        arranged = with_answers(rows, role, arguments.text_columns or (), arguments.label_column)
        if LABEL_COLUMN not in arranged.column_names and role.startswith(("training", "evaluation")):
            raise ValueError(
                f"the {role} dataset has no column `{ANSWERS}`; it has {rows.column_names}: name it by `label_column`."
            )
        return arranged

    def label_column(self, arguments: DataArguments) -> str | None:
        return None

    def read_labels(self, rows: Dataset, role: str, arguments: DataArguments) -> tuple[Dataset, LabelKind]:
        if arguments.problem_type is not None:
            raise ValueError(f"`problem_type` is for labels of rows, and {self.name} has none: leave it out.")
        for name in ("labels_per_class", "dat"):
            if getattr(arguments, name) is not None:
                raise ValueError(
                    f"`{name}` chooses rows by their class, and {self.name} has no classes: leave it out; "
                    "`max_samples` trains on fewer rows."
                )
        return rows, SpanKind()

    def model_labels(self, config: PreTrainedConfig, rows: Dataset) -> LabelKind:
        return SpanKind()

    def read_labels_as(
        self, rows: Dataset, kind: LabelKind, role: str, column: LabelColumn = None, source: str = "the model"
    ) -> Dataset:
        return rows

    def check_domains(
        self, source: Dataset, target: Dataset, kind: LabelKind | None, made_for: Collection[str]
    ) -> None:
        raise ValueError(
            f"{self.name} cannot be adapted to a domain: its scores are of the tokens of one context and no classes "
            "that two domains have in common. Leave `target_dataset` out."
        )

    def prepare(self, rows: Dataset, config: PreTrainedConfig, processor: Any, **reading: Any) -> Dataset:
        check_tokenizer(processor)
        processor.padding_side = "right"  # labels are numbers of tokens, and the question comes first
        if not reading.get("keep_labels", True) and LABEL_COLUMN in rows.column_names:
            rows = rows.remove_columns(LABEL_COLUMN)
        ready = answer_windows(rows, processor, reading_length(config, processor, reading.get("max_length")))
        check_vocabulary((max(ids, default=-1) for ids in ready["input_ids"]), processor, config)
        return ready

    def metrics_of_rows(
        self, config: PreTrainedConfig, rows: Dataset | None, ready: Dataset | None
    ) -> Callable[[EvalPrediction], Metrics]:
        return SpanMetrics(rows, ready)

    def metric_names(self, config: PreTrainedConfig) -> tuple[str, ...]:
        return (*SPAN_METRICS, "has_answer_f1", "no_answer_accuracy")

    def answers(self, rows: Dataset, ready: Dataset, outputs: Any, config: PreTrainedConfig) -> dict[str, list]:
        """A line for every question; its prediction is empty where the context has no answer."""
        found = answers_to(rows, ready, np.asarray(outputs))
        named = {ID_COLUMN: list(rows[ID_COLUMN])} if ID_COLUMN in rows.column_names else {}
        return {
            "row": list(range(len(rows))),
            **named,
            QUESTION: list(rows[QUESTION]),
            "prediction": [one.text for one in found],
            "answer_start": [one.start for one in found],
            "probability": [one.probability for one in found],
        }


class SpanMetrics:
    """`compute_metrics` of the windows of questions.

    Args:
        rows: as they were arranged, with answers.
        ready: their windows; the Trainer's predictions are in the same order.
    """

    def __init__(self, rows: Dataset | None, ready: Dataset | None):
        self.rows, self.ready = rows, ready

    def __call__(self, prediction: EvalPrediction) -> Metrics:
        found = answers_to(self.rows, self.ready, np.asarray(prediction.predictions))
        return span_metrics([one.text for one in found], [one["text"] for one in self.rows[LABEL_COLUMN]])

    def class_figures(self, prediction: EvalPrediction, config: Any) -> dict[str, dict[str, float]]:
        """None: answers have no classes."""
        return {}


def answers_to(rows: Dataset, ready: Dataset, outputs: np.ndarray) -> list[Answer]:
    """The best answer to every row by the outputs [W, T, 2] of its windows."""
    return best_answers(outputs, ready[ROW][:], ready[OFFSETS][:], ready[NO_ANSWER][:], rows[CONTEXT][:])
