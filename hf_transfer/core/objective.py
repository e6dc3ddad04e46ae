"""The two interfaces every method stands on: what an objective reads, and what an objective is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

import torch
from torch import Tensor, nn

from hf_transfer.core.label_sets import LabelSet
from hf_transfer.core.readout import Readout
from hf_transfer.core.task_loss import IGNORED_LABEL as IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL

SOURCE, TARGET = 0, 1

NEEDS = frozenset(
    {
        "features",
        "logits",
        "inputs",
        "outputs",
        "weights",
        "labels",
        "domain",
        "environments",
        "hidden_states",
        "teacher",
        "views",
        "episodes",
        "global_batch",
        "row_numbers",
    }
)
"""What an objective may ask for; nothing unasked is computed, and what is not there in a view is None.

- `features`, `logits`: of the units, from the readout; a readout that has none is refused.
- `inputs`, `outputs`: what the model was given and what it returned, of the rows of the batch.
- `weights`: the model's parameters.

An objective that names none of these is given features and logits.

- `labels`: the training set must have a label column.
- `domain`: the training set must have a `domain` column with both 0 (source) and 1 (target).
- `environments`: the training set must have a `domain` column with at least two values, each an environment.
- `hidden_states`: the model runs with `output_hidden_states=True`.
- `teacher`: a frozen copy of the starting model runs on the same batch, once for all who ask.
- `views`: the batch carries a second augmented copy (keys starting with `view_`), which joins the one forward.
- `episodes`: every batch is an episode of `ways` classes with `shots + queries` rows each, as the objective says.
- `global_batch`: features, logits, labels and domain of all processes are gathered, differentiably, so that a
  statistic of the batch (a covariance, a class confusion, a discriminator's batch norm) is the same on one process
  and on many.
- `row_numbers`: which row of the training set every row of the batch is, where a row is the same at every visit; what
  is measured of a row once holds then for the whole training. Where rows are augmented or drawn anew there are none.
"""


@dataclass(frozen=True)
class View:
    """What an objective may read of one batch. Frozen: an objective returns a loss and changes nothing.

    N counts units, which a readout makes of the batch's B rows: images, sentences, tokens or pixels.
    """

    features: Tensor | None = None
    """[N, D] float32, the input of the last linear head or what else the readout says."""
    logits: Tensor | None = None
    """[N, C] float32."""
    labels: Tensor | None = None
    """[N], or None. `IGNORED_LABEL` marks units without one."""
    domain: Tensor | None = None
    """[N], 0 = source, 1 = target, or None."""
    progress: float = 0.0
    """Share of the training done, in [0, 1]. It drives every schedule, so that resuming is exact."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """The model inputs of the B rows."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Outputs of every layer for the B rows, when an objective needs them."""
    teacher: View | None = None
    """The frozen starting model's view of the same units, when an objective needs it."""
    views: tuple[View, ...] = ()
    """The views of the augmented copies of the same rows, when an objective needs them."""
    model: nn.Module | None = None
    """The model in training, for objectives on its weights."""
    problem_type: str | None = None
    """One of `hf_transfer.core.task_loss.PROBLEM_TYPES`; None where it has to be told from the labels."""
    row: Tensor | None = None
    """[N], the row of the batch that each unit is of; None where units are the rows."""
    outputs: Mapping[str, Tensor] = field(default_factory=dict)
    """The tensors that the model returned for the B rows, when an objective needs them."""
    label_sets: Mapping[str, Tensor] = field(default_factory=dict)
    """[B, ...], the B rows' labels of each column that objectives name as `label_sets`."""
    row_numbers: Tensor | None = None
    """[B], the numbers of the B rows in the training set, when an objective needs them and rows never change."""
    class_weights: Tensor | None = None
    """[C], how much source rows of each class count where class shares differ between the domains; None for alike."""
    label_smoothing: float = 0.0
    """Of the task loss, for objectives that compute it anew: the share of a label spread over all classes."""

    def rows(self, keep: Tensor) -> View:
        """The view restricted to the units where `keep` ([N], bool) is true, and to the rows that these are of."""
        kept_rows, row = keep, None
        if self.row is not None:
            kept_rows, row = self.row[keep].unique(return_inverse=True)

        def of_rows(value: Tensor) -> Tensor:
            has_rows = isinstance(value, Tensor) and value.ndim and (row is not None or len(value) == len(keep))
            return value[kept_rows] if has_rows else value

        return replace(
            self,
            features=_kept(self.features, keep),
            logits=_kept(self.logits, keep),
            labels=_kept(self.labels, keep),
            domain=_kept(self.domain, keep),
            inputs={name: of_rows(value) for name, value in self.inputs.items()},
            outputs={name: of_rows(value) for name, value in self.outputs.items()},
            hidden_states=None if self.hidden_states is None else tuple(of_rows(h) for h in self.hidden_states),
            teacher=None if self.teacher is None else self.teacher.rows(keep),
            views=tuple(view.rows(keep) for view in self.views),
            row=row,
            label_sets={name: of_rows(value) for name, value in self.label_sets.items()},
            row_numbers=None if self.row_numbers is None else of_rows(self.row_numbers),
        )

    def at_most(self, units: int, generator: torch.Generator) -> View:
        """So many random units of the view, in their order; the view itself where it has no more.

        Args:
            units: how many are left.
            generator: draws them, on the CPU.
        """
        count = next((len(value) for value in (self.features, self.logits, self.labels) if value is not None), 0)
        if count <= units:
            return self
        keep = torch.zeros(count, dtype=torch.bool)
        keep[torch.randperm(count, generator=generator)[:units]] = True
        device = next(value.device for value in (self.features, self.logits, self.labels) if value is not None)
        return self.rows(keep.to(device))

    @property
    def unit_weights(self) -> Tensor | None:
        """[N], of every source unit the weight of its class, and 1 of all others and of those without a label; None
        where all classes count alike."""
        if self.class_weights is None or self.labels is None:
            return None
        is_known = self.labels != IGNORED_LABEL
        is_known = is_known if self.domain is None else is_known & (self.domain == SOURCE)
        return torch.where(is_known, self.class_weights[self.labels.clamp(min=0)], 1.0)

    @property
    def source(self) -> View:
        """The source rows; the whole view where there is only one domain."""
        return self if self.domain is None else self.rows(self.domain == SOURCE)

    @property
    def target(self) -> View:
        """The target rows.

        Raises:
            ValueError: the batch has no `domain`.
        """
        if self.domain is None:
            raise ValueError(
                "this batch has no `domain`: give the dataset a `domain` column (0 = source, 1 = target)."
            )
        return self.rows(self.domain == TARGET)


def _kept(value: Tensor | None, keep: Tensor) -> Tensor | None:
    return None if value is None else value[keep]


@dataclass(frozen=True)
class BuildContext:
    """What an objective may read when it makes its heads, discriminators and frozen copies."""

    model: nn.Module
    """The Hugging Face model (or PEFT model) in its starting state."""
    feature_dim: int | None
    """D, the width of the units' features; None where the readout gives none."""
    num_labels: int | None
    """C, the number of logits of a unit; None where the readout gives none."""
    readout: Readout | None = None
    """What reads the model's units; `readout.of(copy)` reads those of a copy of it."""

    def require_rows(self, name: str) -> None:
        """Raises ValueError when units are parts of rows, such as tokens or pixels."""
        if self.readout is not None and not self.readout.units_are_rows:
            raise ValueError(
                f"{name} compares whole rows, and the readout `{type(self.readout).__name__}` gives parts of them: "
                "load a model of whole rows (a classifier, or AutoModel for a backbone alone), or say `readout`, such "
                "as the name of an output of shape [rows, width]."
            )

    def readout_of(self, model: nn.Module) -> Readout:
        """What reads the units of another model, such as a frozen copy, as those of this one are read.

        Raises:
            ValueError: the context was made without a readout, or the model has nothing that it could read.
        """
        if self.readout is None:
            raise ValueError("this BuildContext has no `readout`: give the one of the model in training.")
        return self.readout.of(model)

    def require_classes(self, least: int, name: str) -> None:
        """Raises ValueError when the model has fewer than `least` classes."""
        if self.num_labels is None or self.num_labels < least:
            raise ValueError(
                f"{name} needs a classifier with at least {least} classes, got num_labels={self.num_labels}."
            )


class Objective(nn.Module):
    """One loss term named by its paper. Its keywords are its hyper-parameters; `weight` multiplies it in the total.

    Subclasses set `paper`, state in `needs` what they read of a view, and write `forward`.
    State lives in parameters and buffers, so that checkpoints carry it and several processes share it.

    Args:
        weight: factor of this term in the training loss, >= 0.

    Raises:
        ValueError: `weight` is negative.
    """

    paper: ClassVar[str] = ""
    """arXiv identifier or DOI; it is printed on the model card."""
    needs: ClassVar[frozenset[str]] = frozenset()
    runs_views: ClassVar[bool] = True
    """With the need `views`: False where only the inputs of the second copy are read, so that the model need not run
    on it."""
    reads_outputs: ClassVar[frozenset[str] | None] = None
    """With the need `outputs`: the names of those that are read, so that the others are neither kept nor gathered;
    None for all."""
    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE_LABEL})
    """The problem types (`hf_transfer.core.task_loss.PROBLEM_TYPES`) that the formula is defined for; a run of another
    one is refused. A formula that reads features, weights or `row_losses` alone is defined for `ANY_PROBLEM`."""
    rows_per_domain: ClassVar[int] = 1
    """The least rows of each domain or environment that a batch needs; fewer give it nothing to compare."""
    is_bounded: ClassVar[bool] = False
    """Whether it sees at most `max_units` random units of a batch: the cost grows with the square of their number, or
    each goes through a network of the objective's own, which pixels would be many for."""
    can_collapse: ClassVar[bool] = False
    """Whether it trains features without labels, so that these may become the same for all rows; then pre-training
    logs at every evaluation how far they spread."""
    usual_views: ClassVar[str | None] = None
    """With the need `views`: the preset of `hf_transfer.data.image_views` that images get when the run names no
    `augmentation`; other rows are then changed strongly in both views."""
    label_sets: Mapping[str, LabelSet] = {}
    """Further label columns of the training set that it reads, as `view.label_sets`."""
    parts: Mapping[str, Tensor] = {}
    """Terms of the last loss by name, detached, which the log tells beside their sum."""
    weighs_source: ClassVar[bool] = False
    """Whether it gives source rows the weights of their classes where class shares differ between the domains."""
    label_space: ClassVar[str] = "closed"
    """Which target classes the method is made for: those of the source, "partial" (only some of them) or "open" (also
    others)."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        if weight < 0:
            raise ValueError(f"`weight` should be at least 0, got {weight}.")
        self.weight = weight

    def build(self, context: BuildContext) -> None:
        """Make heads, discriminators and frozen copies. Called once, before any forward."""

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure what is needed on the data (Fisher information, label relation). Called once before training."""

    def check_batch(self, rows: int) -> None:
        """Refuse, before training, batches of so many rows, those of all processes together."""

    def constant_rate_parameters(self) -> Iterable[nn.Parameter]:
        """Own parameters whose learning rate stays as it is at the start, whatever the schedule says; usually none."""
        return ()

    def forward(self, view: View) -> Tensor:
        """The unweighted loss, a scalar."""
        raise NotImplementedError(f"{type(self).__name__} should define `forward(view)`.")

    def after_step(self, model: nn.Module) -> None:
        """Update moving averages and queues. Called after every optimizer step, without gradients."""


@dataclass(frozen=True)
class Phase:
    """One kind of step of a method whose steps alternate: which parameters descend which loss, and how often.

    Args:
        name: what the log calls it.
        parameters: from the model in training to the parameters that move; all others stand still and get no gradient.
        loss: what they descend, of the batch; None where it is the task loss alone.
        steps: how many steps of this kind in a row, on the same batch.
        joins_task: whether the task loss and the other objectives are added.
        runs_model: whether the view holds features and logits; False saves the model's forward.
    """

    name: str
    parameters: Callable[[nn.Module], Iterable[nn.Parameter]]
    loss: Callable[[View], Tensor] | None = None
    steps: int = 1
    joins_task: bool = False
    runs_model: bool = True


class AlternatingObjective(Objective):
    """A method whose steps alternate between groups of parameters with losses of their own.

    A TransferTrainer goes through `phases` on every batch, see `hf_transfer.training.steps`. The method weights its
    terms itself: `weight` is for its own use, and the warm-up of the other objectives does not apply to it.
    """

    phase: Phase | None = None
    """The present one; the trainer sets it."""

    def phases(self, progress: float) -> Sequence[Phase]:
        """The phases of one batch in their order, at this share of the training in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} should define `phases(progress)`.")

    def forward(self, view: View) -> Tensor:
        if self.phase is None:
            raise RuntimeError(f"{type(self).__name__} has no phase: a TransferTrainer sets it.")
        return no_loss(view) if self.phase.loss is None else self.phase.loss(view)


def alternating_name(objectives: Mapping[str, Objective]) -> str | None:
    """The name of the objective whose steps alternate, if there is one.

    Raises:
        ValueError: there are several.
    """
    names = [name for name, objective in objectives.items() if isinstance(objective, AlternatingObjective)]
    if len(names) > 1:
        raise ValueError(f"the steps of one objective can alternate, got {names}: keep one of them.")
    return names[0] if names else None


def needs_of(objective: Objective) -> frozenset[str]:
    """What an objective asks for, features and logits where it does not say what it reads."""
    says = objective.needs & {"features", "logits", "inputs", "outputs", "weights"}
    return objective.needs if says else objective.needs | {"features", "logits"}


def check_needs(objectives: Mapping[str, Objective]) -> frozenset[str]:
    """All that the objectives ask for.

    Raises:
        ValueError: an objective names a need that does not exist.
    """
    asked: set[str] = set()
    for name, objective in objectives.items():
        unknown = objective.needs - NEEDS
        if unknown:
            raise ValueError(f"objective `{name}` needs {sorted(unknown)}, accepted: {sorted(NEEDS)}.")
        asked |= needs_of(objective)
    return frozenset(asked)


def outputs_of(objectives: Iterable[Objective]) -> frozenset[str] | None:
    """Names of the model's outputs that objectives with the need `outputs` read; None for all."""
    names: set[str] = set()
    for one in objectives:
        if "outputs" in one.needs:
            if one.reads_outputs is None:
                return None
            names |= one.reads_outputs
    return frozenset(names)


def no_loss(view: View) -> Tensor:
    """A zero that keeps the graph, for a batch an objective has nothing to say about (no labelled row, say)."""
    for value in (view.features, view.logits):
        if value is not None:
            return value.sum() * 0.0
    return torch.zeros((), device=None if view.model is None else next(view.model.parameters()).device)
