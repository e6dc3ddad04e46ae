"""What a schedule is: how fast every layer trains, and from when on; and the two plain ones.

    rate of a layer = learning_rate * rate(layers below the head) * rate_over_time(step)

A layer's index counts from the head down: 0 is the head, 1 the top layer, and the largest index the embeddings.

Papers: layer-wise decay is Clark et al., "ELECTRA", ICLR 2020, https://huggingface.co/papers/2003.10555; a frozen
backbone for a share of the training, then all of it, is Kumar et al., "Fine-Tuning can Distort Pretrained Features and
Underperform Out-of-Distribution", ICLR 2022, https://huggingface.co/papers/2202.10054.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

from hf_transfer.core.keywords import checked_keywords
from hf_transfer.core.registry import registered
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.task_adaptation import SCHEDULES


class Schedule:
    """How fast each layer trains, and when. All of it follows from index and progress, so that resuming is exact."""

    paper: ClassVar[str] = ""
    """arXiv identifier or DOI; it is printed on the model card."""
    sets_rate_over_time: ClassVar[bool] = False
    """Whether `rate_over_time` takes the place of the trainer's learning-rate scheduler."""

    def rate(self, index: int) -> float:
        """What the learning rate of a layer is multiplied by."""
        return 1.0

    def is_frozen(self, index: int, deepest: int, progress: float) -> bool:
        """Whether a layer of the backbone rests.

        Args:
            index: of the layer, from 1.
            deepest: index of the embeddings.
            progress: share of the training done, in [0, 1).
        """
        return False

    def rate_over_time(self, step: int, num_steps: int) -> float:
        """What all learning rates are multiplied by at a step."""
        return 1.0


class LayerDecay(Schedule):
    """Learning rates that shrink from layer to layer: rate = decay^index.

    Args:
        decay: > 0; .65 to .95 are usual.

    Raises:
        ValueError: `decay` is not positive.
    """

    paper = "2003.10555"

    def __init__(self, decay: float):
        require_positive(layer_learning_rate_decay=decay)
        self.decay = decay

    def rate(self, index: int) -> float:
        return self.decay**index


class BackboneFreeze(Schedule):
    """The head alone trains at first: a layer rests while progress < ratio. 1 is feature transfer.

    Args:
        ratio: share of the training, in [0, 1].

    Raises:
        ValueError: `ratio` is out of its range.
    """

    paper = "2202.10054"

    def __init__(self, ratio: float):
        if not 0 <= ratio <= 1:
            raise ValueError(f"`backbone_freeze_ratio` should be in [0, 1], got {ratio}.")
        self.ratio = ratio

    def is_frozen(self, index: int, deepest: int, progress: float) -> bool:
        return progress < self.ratio


def make_schedules(
    spec: Mapping[str, Any] | None, layer_decay: float = 1.0, freeze_ratio: float = 0.0
) -> list[Schedule]:
    """Schedules from {"ulmfit": {"decay": 2.6}} and from the two numbers; ready-made ones pass through.

    Raises:
        ValueError: an unknown name, a value out of range, or two that set the rate over time.
        TypeError: a keyword that the schedule does not have.
    """
    made: list[Schedule] = [LayerDecay(layer_decay), BackboneFreeze(freeze_ratio)]
    made = [one for one, plain in zip(made, (layer_decay == 1.0, freeze_ratio == 0.0), strict=True) if not plain]
    for name, keywords in (spec or {}).items():
        if isinstance(keywords, Schedule):
            made.append(keywords)
            continue
        schedule = registered(SCHEDULES, name, "schedule")
        checked = checked_keywords(schedule, keywords, f"schedule `{name}`")
        try:
            made.append(schedule(**checked))
        except TypeError as error:
            raise TypeError(f"schedule `{name}`: {error}") from error
    timed = [type(one).__name__ for one in made if one.sets_rate_over_time]
    if len(timed) > 1:
        raise ValueError(f"only one schedule may set the rate over time, got {timed}.")
    return made
