"""Frozen teachers, and what they say of every training row, computed once."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.core.readout import Units
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.multi_model.composite import accepted_inputs
from hf_transfer.multi_model.members import check_inputs, fingerprint_of, load_member, run_member

LARGEST_TABLE = 2**28
"""Numbers that are kept of all rows together, 1 GB; beyond, teachers run in every step."""
TOLD = ("labels", "label", "domain", "row_numbers", "items_per_batch")


class Teacher(nn.Module):
    """A frozen model in evaluation mode.

    One from a folder is loaded from there again when a training goes on; checkpoints hold a number that depends on all
    of its weights, by which another model in its place is noticed. One that is given as a module is in checkpoints.

    Args:
        source: folder or Hub id, or the model itself, which is copied.
        with_head: as `load_member`.
        fit: is called with the model, before anything reads it; it may refuse or change it.

    Raises:
        ValueError: it cannot be loaded; when a checkpoint is loaded, the folder holds another model than before.
    """

    def __init__(
        self,
        source: str | PreTrainedModel,
        with_head: bool = True,
        fit: Callable[[PreTrainedModel], None] = lambda model: None,
    ):
        super().__init__()
        self.folder = source if isinstance(source, str) else None
        self.with_head = with_head
        self.fit = fit
        self.name = teacher_name(source)
        self.copy = FrozenCopy(source if self.folder is None else load_member(source, "teacher", with_head))
        fit(self.model)
        self.readout = choose_readout(self.model)
        if self.folder is not None:
            self.register_buffer("fingerprint", fingerprint_of(self.copy.module))
            self.register_state_dict_post_hook(_without_copy)

    @property
    def model(self) -> PreTrainedModel:
        return self.copy.module

    @property
    def feature_width(self) -> int:
        """D, the width of its features.

        Raises:
            ValueError: it has none to read.
        """
        if self.readout.feature_dim is None:
            raise ValueError(f"{self.name} has no features to read: give a classifier or a backbone.")
        return self.readout.feature_dim

    @torch.no_grad()
    def forward(self, inputs: Mapping[str, Tensor]) -> Units:
        """Features and logits of the units of a batch."""
        inputs = accepted_inputs(self.model, inputs)
        with self.readout:
            outputs = run_member(self.copy.module, self.name, inputs)
        units = self.readout.read(outputs, inputs)
        if units.logits is None and outputs.get("logits") is not None:  # of an ensemble, which has no head of its own
            units = replace(units, logits=outputs["logits"].float())
        return units

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}fingerprint")
        if self.folder is not None and stored is not None:
            if int(fingerprint_of(self.model)) != int(stored):
                fresh = load_member(self.folder, "teacher", self.with_head)
                self.fit(fresh)
                self.model.load_state_dict(fresh.state_dict())
            if int(fingerprint_of(self.model)) != int(stored):
                raise ValueError(
                    f"{self.name} is another model than the one that this training began with: put that one back, or "
                    "start over (--overwrite)."
                )
            for name, value in self.copy.state_dict(prefix=f"{prefix}copy.").items():
                state_dict.setdefault(name, value)
        super()._load_from_state_dict(state_dict, prefix, *rest)


def teacher_name(source: str | PreTrainedModel) -> str:
    """What errors call a teacher."""
    return f"the teacher `{source if isinstance(source, str) else type(source).__name__}`"


def _without_copy(module: Teacher, state_dict: dict[str, Tensor], prefix: str, _: Any) -> None:
    for name in [name for name in state_dict if name.startswith(f"{prefix}copy.")]:
        del state_dict[name]


class RowTable(nn.Module):
    """One vector for each row of the training set, [N, W]; empty until it is filled.

    It is a parameter without gradient: several processes would send each other buffers at every step.
    """

    def __init__(self):
        super().__init__()
        self.values = nn.Parameter(torch.empty(0, 0), requires_grad=False)

    def fill(self, rows: Tensor, values: Tensor) -> None:
        """Take values [N, W] for the rows of these numbers [N], each of which is there once."""
        table = torch.empty_like(values)
        table[rows] = values
        self.values.data = table.to(self.values.device)

    def forward(self, rows: Tensor) -> Tensor:
        return self.values[rows]

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *rest: Any) -> None:
        stored = state_dict.get(f"{prefix}values")
        if stored is not None:
            self.values.data = torch.empty(stored.shape, device=self.values.device)
        super()._load_from_state_dict(state_dict, prefix, *rest)


class Taught(Objective):
    """An objective with frozen teachers, who are asked once about every row where rows never change.

    Subclasses define `answers`, and extend `fit_teacher`.

    Args:
        teachers: folders, Hub ids or models; or one of them; None where `build` finds them.
        with_heads: teachers have to be classifiers or regressions.
        cache: ask once; otherwise, and where rows are augmented or their answers too many, teachers run in every step.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: there is no teacher; at `build`, one cannot be loaded or does not fit the model in training.
    """

    needs = frozenset({"inputs", "row_numbers"})

    def __init__(
        self,
        teachers: str | PreTrainedModel | Sequence[str | PreTrainedModel] | None,
        with_heads: bool,
        cache: bool,
        weight: float,
    ):
        super().__init__(weight)
        one = isinstance(teachers, (str, nn.Module))
        # In a tuple, so that modules given are not registered as this objective's own.
        self._sources = (teachers,) if one else tuple(teachers or ())
        if teachers is not None and not self._sources:
            raise ValueError("`teacher` should name at least one model, got none.")
        self.with_heads = with_heads
        self.cache = cache

    @property
    def member_folders(self) -> tuple[str, ...]:
        """Where the teachers are that come from folders; their processors have to be the run's."""
        return tuple(source for source in self._sources if isinstance(source, str))

    def build(self, context: BuildContext) -> None:
        student = unwrap_peft(context.model)
        self.table = RowTable()
        self.teachers = nn.ModuleList()
        for source in self._sources:
            fit = partial(self.fit_teacher, name=teacher_name(source), student=student)
            self.teachers.append(Teacher(source, self.with_heads, fit))

    def fit_teacher(self, model: PreTrainedModel, name: str, student: PreTrainedModel) -> None:
        """Raises ValueError where a teacher does not fit the model in training; may change it so that it does."""
        check_inputs(model, name, student)

    def answers(self, inputs: Mapping[str, Tensor]) -> Tensor:
        """What the teachers together say of the units of a batch, [N, W], without gradients."""
        raise NotImplementedError(f"{type(self).__name__} should define `answers(inputs)`.")

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Ask the teachers about every row, where the batches have the numbers of their rows."""
        rows, kept = [], []
        for batch in on_device(dataloader, self.table.values.device):
            answers = self.answers(model_inputs(batch))
            if not self.can_keep(batch, answers.shape[1], dataloader):
                return
            rows.append(batch["row_numbers"])
            kept.append(answers)
        self.table.fill(torch.cat(rows), torch.cat(kept))

    def can_keep(self, batch: Mapping[str, Tensor], width: int, dataloader: Any) -> bool:
        """Whether answers of that width are kept for all rows."""
        by_row = all(teacher.readout.units_are_rows for teacher in self.teachers)
        is_small = width * len(getattr(dataloader, "dataset", ())) <= LARGEST_TABLE
        return self.cache and by_row and is_small and "row_numbers" in batch

    def lesson(self, view: View) -> Tensor:
        """The answers for the units of a view: kept ones, or else asked for now."""
        if view.row_numbers is not None and view.row is None and len(self.table.values):
            return self.table(view.row_numbers)
        return self.answers(view.inputs)


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a batch that a model reads."""
    return {name: value for name, value in batch.items() if name not in TOLD and not name.startswith("view")}


def on_device(dataloader: Iterable[Mapping[str, Any]], device: torch.device) -> Iterable[dict[str, Tensor]]:
    """The tensors of each batch, on a device."""
    for batch in dataloader:
        yield {name: value.to(device) for name, value in batch.items() if isinstance(value, Tensor)}
