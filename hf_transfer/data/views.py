"""A second augmented copy of every training row, for objectives that compare two views of it.

The draws of a row depend on the seed, the row and the epoch, and on nothing else: neither on the rest of its batch
and the padding, nor on the number of worker processes or of processes, nor on what was drawn before. So every epoch
shows a row anew, and a resumed run sees what a straight one does. The trainer says which row of which epoch it is;
where nobody does, what the batch holds of the row takes their place.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import torch
from datasets import Dataset
from torch import Tensor
from transformers import PreTrainedTokenizerBase
from transformers.utils import logging

from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.image_augmentation import ImageAugmentation
from hf_transfer.data.image_views import image_views
from hf_transfer.data.scene_augmentation import SceneAugmentation
from hf_transfer.data.series_augmentation import SeriesAugmentation
from hf_transfer.data.text_augmentation import TextAugmentation
from hf_transfer.data.visits import VISIT_COLUMN, seed_of

logger = logging.get_logger(__name__)

VIEW_PREFIX = "view_"
STRENGTHS = ("none", "weak", "strong", "first_view", "second_view")
"""`weak` and `strong` of an Augmentation; `first_view` and `second_view` of ImageViews."""
AUGMENTATIONS = {
    "pixel_values": ImageAugmentation,
    "input_ids": TextAugmentation,
    "past_values": SeriesAugmentation,
}
"""What augments a batch, by the model input that it holds."""


class Augmentation(Protocol):
    """Two strengths of random change; each takes and gives the model inputs of a batch, here always of one row."""

    def weak(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]: ...

    def strong(self, inputs: Mapping[str, Tensor], generator: torch.Generator) -> dict[str, Tensor]: ...


@dataclass(frozen=True)
class ViewCollator:
    """Augments what another collator gives, and adds a second augmented copy under keys that start with `view_`.

    Args:
        collator: makes a batch of rows.
        augmentation: ImageAugmentation, TextAugmentation, SeriesAugmentation or another of that form.
        first: how the batch itself is augmented, a value of STRENGTHS.
        second: how the copy is augmented; None adds no copy.
        seed: of the draws.

    Raises:
        ValueError: a strength that there is not.
    """

    collator: Callable[[Sequence[Any]], Mapping[str, Any]]
    augmentation: Augmentation
    first: str = "weak"
    second: str | None = "strong"
    seed: int = 0
    reads_visits: ClassVar[bool] = True

    def __post_init__(self):
        for name, accepted in (("first", STRENGTHS), ("second", (*STRENGTHS, None))):
            if getattr(self, name) not in accepted:
                raise ValueError(f"`{name}` should be one of {accepted}, got {getattr(self, name)!r}.")
            strength = getattr(self, name)
            if strength not in ("none", None) and not hasattr(self.augmentation, strength):
                raise ValueError(f"`{name}` = {strength!r} is nothing that {type(self.augmentation).__name__} has.")

    def __call__(self, rows: Sequence[Any]) -> dict[str, Any]:
        visits = [row.get(VISIT_COLUMN) for row in rows]
        if not getattr(self.collator, "reads_visits", False):
            rows = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        batch = dict(self.collator(rows))
        inputs = {name: value for name, value in batch.items() if is_input(name, value, len(rows))}
        if getattr(self.augmentation, "moves_labels", False) and "labels" in batch:
            inputs["labels"] = batch["labels"]
        generators = []
        for index, visit in enumerate(visits):
            row = {name: value[index : index + 1] for name, value in inputs.items()}
            seed = content_seed(row, self.seed) if visit is None else visit.seed(self.seed)
            generators.append(torch.Generator().manual_seed(seed))
        first = self._augmented_rows(inputs, self.first, generators)
        second = {} if self.second is None else self._augmented_rows(inputs, self.second, generators)
        return {**batch, **first, **{f"{VIEW_PREFIX}{name}": value for name, value in second.items()}}

    def _augmented_rows(
        self, inputs: dict[str, Tensor], strength: str, generators: Sequence[torch.Generator]
    ) -> dict[str, Tensor]:
        """Every row changed by the draws of its own generator."""
        if strength != "none" and getattr(self.augmentation, "takes_batches", False):
            return getattr(self.augmentation, strength)(inputs, generators)
        rows = [{name: value[index : index + 1] for name, value in inputs.items()} for index in range(len(generators))]
        return joined([self._augmented(row, strength, one) for row, one in zip(rows, generators, strict=True)])

    def _augmented(self, row: dict[str, Tensor], strength: str, generator: torch.Generator) -> dict[str, Tensor]:
        """One row [1, ...] changed; how far its batch is padded has no part in it."""
        if strength == "none":
            return row
        change = getattr(self.augmentation, strength)
        mask = row.get("attention_mask")
        if mask is None or mask.ndim != 2:
            return change(row, generator)
        real = mask[0].bool()
        padded = [name for name, value in row.items() if value.shape[:2] == mask.shape]
        changed = change({**row, **{name: row[name][:, real] for name in padded}}, generator)
        for name in padded:
            whole = row[name].to(changed[name].dtype, copy=True)
            whole[:, real] = changed[name]
            changed[name] = whole
        return changed


def gives_views(collator: Callable[[Sequence[Any]], Mapping[str, Any]], rows: Dataset) -> bool:
    """Whether a collator adds a second copy to a batch; tried on two rows, without a trace in the random state."""
    with torch.random.fork_rng(devices=[]):
        batch = collator([rows[index] for index in range(min(2, len(rows)))])
    return any(name.startswith(VIEW_PREFIX) for name in batch)


def is_input(name: str, value: Any, rows: int) -> bool:
    """Whether an entry of a batch of so many rows is a tensor that the model reads, row by row."""
    is_told = name in (*LABEL_COLUMNS, "domain") or name.startswith(VIEW_PREFIX)
    return isinstance(value, Tensor) and value.ndim > 0 and len(value) == rows and not is_told


def joined(rows: Sequence[Mapping[str, Tensor]]) -> dict[str, Tensor]:
    """Rows [1, ...] as one batch [B, ...]."""
    return {name: torch.cat([row[name] for row in rows]) for name in (rows[0] if rows else ())}


def content_seed(row: Mapping[str, Tensor], seed: int) -> int:
    """A seed that depends on every value of a row [1, ...] and on `seed`."""
    return seed_of(str(seed).encode() + b"".join(row[name].contiguous().numpy().tobytes() for name in sorted(row)))


def make_augmentation(
    columns: Sequence[str],
    settings: Mapping[str, Any] | None = None,
    processor: Any = None,
    usual_views: str | None = None,
    moves_labels: bool = False,
) -> tuple[Augmentation, dict[str, str]]:
    """The augmentation for rows with these columns, and how strong either view is, as keywords of ViewCollator.

    Args:
        columns: columns of the training set.
        settings: keywords of the augmentation, and `first` and `second`; `views` names a preset of ImageViews.
        processor: the tokenizer, where the rows hold text; the image processor, where they hold images.
        usual_views: the preset for images where settings name none of `views`, `first` and `second`; other rows are
            then changed strongly in both views.
        moves_labels: whether labels are of parts of pictures, which have to move with them.

    Raises:
        ValueError: no column that could be augmented, no tokenizer for text, an unknown setting or one out of range.
    """
    settings = dict(settings or {})
    strengths = {name: settings.pop(name) for name in ("first", "second") if name in settings}
    column = next((name for name in AUGMENTATIONS if name in columns), None)
    if column is None:
        raise ValueError(
            f"nothing augments rows of {sorted(columns)}, only of {list(AUGMENTATIONS)}: give a `data_collator` that "
            f"adds a second copy of the inputs under keys starting with `{VIEW_PREFIX}`."
        )
    preset = settings.pop("views", None) if column == "pixel_values" else None
    if column == "pixel_values" and (preset or (usual_views and not strengths)):
        views = {"first": "first_view", "second": "second_view"}
        return image_views(preset or usual_views, processor, **settings), {**views, **strengths}
    strengths = {**({"first": "strong", "second": "strong"} if usual_views else {}), **strengths}
    cls = SceneAugmentation if moves_labels and column == "pixel_values" else AUGMENTATIONS[column]
    accepted = set(inspect.signature(cls).parameters) - {"tokenizer"}
    unknown = sorted(set(settings) - accepted)
    if unknown:
        shown = sorted(accepted | {"first", "second"} | ({"views"} if column == "pixel_values" else set()))
        raise ValueError(f"`augmentation` has no {unknown}, accepted: {shown}.")
    if cls is TextAugmentation:
        if not isinstance(processor, PreTrainedTokenizerBase):
            raise ValueError("the augmentation of text needs its tokenizer: pass it as `processing_class`.")
        settings["tokenizer"] = processor
    return cls(**settings), strengths


def augmenting_collator(
    collator: Callable[[Sequence[Any]], Mapping[str, Any]],
    rows: Dataset,
    settings: Mapping[str, Any] | None,
    comparing: Sequence[str],
    processor: Any,
    seed: int,
    usual_views: str | None = None,
    moves_labels: bool = False,
) -> Callable[[Sequence[Any]], Mapping[str, Any]]:
    """A collator of training rows that augments them, and adds a second view where objectives compare two.

    Args:
        collator: makes a batch of rows; one that adds second views itself stays as it is.
        rows: the training set.
        settings: as `make_augmentation` takes them; None for the usual ones, which the log names.
        comparing: names of the objectives that compare two views.
        processor: the tokenizer or image processor of the rows.
        seed: of the draws.
        usual_views, moves_labels: as `make_augmentation` takes them.

    Raises:
        ValueError: nothing makes the second view that an objective needs, and all that `make_augmentation` raises.
    """
    if settings is None and gives_views(collator, rows):
        return collator
    if isinstance(collator, ViewCollator):
        raise ValueError(
            "give `augmentation` or a ViewCollator, not both."
            if settings is not None
            else f"{list(comparing)} compare two views, and the ViewCollator gives one: set its `second`."
        )
    augmentation, strengths = make_augmentation(rows.column_names, settings, processor, usual_views, moves_labels)
    if not comparing:
        strengths["second"] = None
    made = ViewCollator(collator, augmentation, **strengths, seed=seed)
    if comparing and made.second is None:
        raise ValueError(f"{list(comparing)} compare two views: `augmentation` should name a strength as `second`.")
    if settings is None:
        logger.warning(
            f"{list(comparing)} compare two views of every row: {made.first} and {made.second} {augmentation}. "
            "`augmentation` changes them."
        )
    return made
