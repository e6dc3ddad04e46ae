"""The two interfaces every method stands on: what an objective reads, and what an objective is."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import ClassVar

from torch import Tensor, nn

from hf_transfer.core.task_loss import IGNORED_LABEL as IGNORED_LABEL
from hf_transfer.core.task_loss import SINGLE_LABEL

SOURCE, TARGET = 0, 1

NEEDS = frozenset(
    {"labels", "domain", "environments", "hidden_states", "teacher", "views", "episodes", "global_batch"}
)
"""What an objective may ask for beyond features and logits; nothing unasked is computed.

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
"""


@dataclass(frozen=True)
class View:
    """What an objective may read of one batch. Frozen: an objective returns a loss and changes nothing."""

    features: Tensor
    """[B, D] float32, the input of the last linear head."""
    logits: Tensor
    """[B, C] float32."""
    labels: Tensor | None = None
    """[B], or None. `IGNORED_LABEL` marks rows without one."""
    domain: Tensor | None = None
    """[B], 0 = source, 1 = target, or None."""
    progress: float = 0.0
    """Share of the training done, in [0, 1]. It drives every schedule, so that resuming is exact."""
    inputs: Mapping[str, Tensor] = field(default_factory=dict)
    """The model inputs of this process's rows."""
    hidden_states: tuple[Tensor, ...] | None = None
    """Outputs of every layer, when an objective needs them."""
    teacher: View | None = None
    """The frozen starting model's view of the same rows, when an objective needs it."""
    views: View | None = None
    """The view of the second augmented copy of the same rows, when an objective needs it."""
    model: nn.Module | None = None
    """The model in training, for objectives on its weights."""
    problem_type: str | None = None
    """One of `hf_transfer.core.task_loss.PROBLEM_TYPES`; None where it has to be told from the labels."""

    def rows(self, keep: Tensor) -> View:
        """The same view restricted to the rows where `keep` ([B], bool) is true."""

        def select(value):
            if isinstance(value, Tensor) and value.ndim and len(value) == len(keep):
                return value[keep]
            return value.rows(keep) if isinstance(value, View) else value

        return replace(
            self,
            features=self.features[keep],
            logits=self.logits[keep],
            labels=select(self.labels),
            domain=select(self.domain),
            inputs={name: select(value) for name, value in self.inputs.items()},
            hidden_states=None if self.hidden_states is None else tuple(select(h) for h in self.hidden_states),
            teacher=select(self.teacher),
            views=select(self.views),
        )

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


class Objective(nn.Module):
    """One loss term named by its paper. Its keywords are its hyper-parameters; `weight` multiplies it in the total.

    Subclasses set `paper`, state in `needs` what they read beyond features and logits, and write `forward`.
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
    tasks: ClassVar[frozenset[str]] = frozenset({SINGLE_LABEL})
    """The problem types (`hf_transfer.core.task_loss.PROBLEM_TYPES`) that the formula is defined for; a run of another
    one is refused. A formula that reads features, weights or `row_losses` alone is defined for `ANY_PROBLEM`."""
    rows_per_domain: ClassVar[int] = 1
    """The least rows of each domain or environment that a batch needs; fewer give it nothing to compare."""
    label_space: ClassVar[str] = "closed"
    """Which target classes the method is made for: those of the source, "partial" (only some of them) or "open" (also
    others)."""

    def __init__(self, weight: float = 1.0):
        super().__init__()
        if weight < 0:
            raise ValueError(f"`weight` should be at least 0, got {weight}.")
        self.weight = weight

    def build(self, model: nn.Module, feature_dim: int, num_labels: int) -> None:
        """Make heads, discriminators and frozen copies. Called once, before any forward.

        Args:
            model: the Hugging Face model (or PEFT model) in its starting state.
            feature_dim: D, width of the input of the last linear head.
            num_labels: C, width of its output.
        """

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure what is needed on the data (Fisher information, label relation). Called once before training."""

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

    It is trained by `AlternatingTrainer`, which goes through `phases` on every batch. The method weights its terms
    itself: `weight` is for its own use, and the warm-up of the other objectives does not apply to it.
    """

    phase: Phase | None = None
    """The present one; the trainer sets it."""

    def phases(self, progress: float) -> Sequence[Phase]:
        """The phases of one batch in their order, at this share of the training in [0, 1]."""
        raise NotImplementedError(f"{type(self).__name__} should define `phases(progress)`.")

    def forward(self, view: View) -> Tensor:
        if self.phase is None:
            raise RuntimeError(f"{type(self).__name__} has no phase: train it with AlternatingTrainer.")
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


def check_needs(objectives: Mapping[str, Objective]) -> frozenset[str]:
    """All that the objectives ask for.

    Raises:
        ValueError: an objective names a need that does not exist.
    """
    asked = set()
    for name, objective in objectives.items():
        unknown = objective.needs - NEEDS
        if unknown:
            raise ValueError(f"objective `{name}` needs {sorted(unknown)}, accepted: {sorted(NEEDS)}.")
        asked |= objective.needs
    return frozenset(asked)


def no_loss(view: View) -> Tensor:
    """A zero that keeps the graph, for a batch an objective has nothing to say about (no labelled row, say)."""
    return view.features.sum() * 0.0
