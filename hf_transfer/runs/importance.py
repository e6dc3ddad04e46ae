"""Domain adaptive transfer in a run: the training rows get the weights that a classifier's view of a target gives."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import torch
from datasets import Dataset
from transformers.utils import logging

from hf_transfer.core.task_loss import IGNORED_LABEL, SINGLE_LABEL
from hf_transfer.data.bundled import load
from hf_transfer.data.checks import check_not_empty, column_values, label_column
from hf_transfer.data.columns import replace_column, without_labels
from hf_transfer.data.samplers import WEIGHT_COLUMN
from hf_transfer.hub.adapter import are_made_up
from hf_transfer.pretraining.dat import ImportanceWeights, dat_weights
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import RunData
from hf_transfer.runs.models import load_model
from hf_transfer.runs.predict import outputs_of

logger = logging.get_logger(__name__)

ACCEPTED = ("classifier", "target", "split", "options", "max_weight")
SHOWN_CLASSES = 5


def drawn_by_importance(raw: RunData, data: RunData, task: str, arguments: DataArguments, batch_size: int) -> RunData:
    """The data, whose training rows have a column with their weights.

    Args:
        raw: as they were read.
        data: as inputs of the model.
        task: of the run.
        arguments: with `dat`.
        batch_size: of the classifier.

    Raises:
        ValueError: an unknown setting or one that is missing, labels that are no classes, or a classifier of others.
    """
    settings = checked(arguments.dat)
    names = raw.class_names
    if raw.kind.problem_type != SINGLE_LABEL or not names:
        raise ValueError(f"`dat` weighs classes, and the labels are {raw.kind.in_words()}.")
    labels = torch.from_numpy(column_values(data.train, label_column(data.train, "training")))
    if (labels == IGNORED_LABEL).any():
        raise ValueError("`dat` weighs rows by their class, and some training rows have no label: leave them out.")
    target = load(settings["target"], settings.get("split"), options=settings.get("options"))
    check_not_empty(target, "target")
    probabilities = target_probabilities(settings["classifier"], task, target, names, arguments, batch_size)
    found = dat_weights(probabilities, labels, settings.get("max_weight"))
    tell(found, names, len(labels))
    weighted = replace_column(data.train, WEIGHT_COLUMN, found.of_rows(labels).numpy())
    return replace(data, train=weighted)


def checked(settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """Raises ValueError when a setting is unknown or missing."""
    unknown = sorted(set(settings) - set(ACCEPTED))
    missing = [name for name in ("classifier", "target") if name not in settings]
    if unknown or missing:
        raise ValueError(f"`dat` has no {unknown} and lacks {missing}; accepted: {list(ACCEPTED)}.")
    return settings


def target_probabilities(
    classifier: str, task: str, target: Dataset, names: list[str], arguments: DataArguments, batch_size: int
) -> torch.Tensor:
    """p(y | x) of every target row, in the order of the training classes, [M, C].

    Raises:
        ValueError: the classifier cannot be loaded, or has other classes.
    """
    model = ModelArguments(model=classifier, task=task).model
    loaded = load_model(ModelArguments(model=model, task=task), allow_new_weights=False)
    own = [loaded.config.id2label[index] for index in range(loaded.config.num_labels)]
    if are_made_up(own) and names == [str(index) for index in range(len(own))]:
        own = names  # classes that are their numbers
    if sorted(own) != sorted(names):
        raise ValueError(
            f"`dat`: the classifier `{classifier}` tells {own[:SHOWN_CLASSES]} ({len(own)} classes), and the training "
            f"rows have {names[:SHOWN_CLASSES]} ({len(names)}): name one that was trained on them."
        )
    texts = tuple(arguments.text_columns or ())
    logits = outputs_of(loaded, task, model, without_labels(target), texts, batch_size, arguments.max_length)
    return logits.softmax(dim=1)[:, [own.index(name) for name in names]]


def tell(found: ImportanceWeights, names: list[str], rows: int) -> None:
    """Log the largest and smallest weights, and what the draw is worth."""
    order = found.weights.argsort(descending=True).tolist()
    shown = order if len(order) <= 2 * SHOWN_CLASSES else [*order[:SHOWN_CLASSES], *order[-SHOWN_CLASSES:]]
    weights = ", ".join(f"{names[index]} {found.weights[index]:.2f}" for index in shown)
    lost = f"; {found.lost_share:.0%} of the target is of classes without rows" if found.lost_share > 0 else ""
    logger.warning(
        f"rows are drawn by importance: {weights}. {rows} rows so drawn are worth {found.effective_rows:.0f}{lost}."
    )
