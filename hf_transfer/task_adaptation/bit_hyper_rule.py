"""BiT's HyperRule: how long and how fast to fine-tune follows from the number of training rows alone.

    rows          steps    warm-up   rate / 10 after steps
    < 20,000        500        100     200    300    400
    < 500,000    10,000        500   3,000  6,000  9,000
    more         20,000        500   6,000 12,000 18,000

    rate(t) = .003 (batch / 512) min(1, t / warm-up) / 10^(number of those steps that are past)

SGD with momentum .9, no weight decay, batches of 512; fewer rows than that are one batch, at the rate of 512. A run of
another length has the same shape. Of the rule's other two parts, pictures are resized and cut as the model's processor
says (the rule: 128 pixels for pictures below 96 x 96, else 480), and rows are not mixed (the rule: mixup of .1 from
20,000 rows on). The architecture, with group norms and standardised weights, is transformers' `model_type: bit`.

Paper: Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", ECCV 2020,
https://huggingface.co/papers/1912.11370; steps, rates and decay as in the released code.
"""

from __future__ import annotations

from dataclasses import dataclass

from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.task_adaptation.schedule import Schedule

LEARNING_RATE, BATCH, MOMENTUM = 0.003, 512, 0.9
SMALL, MEDIUM = 20_000, 500_000


@dataclass(frozen=True)
class Length:
    """Steps of a training, of its warm-up, and after which its rate falls to a tenth."""

    steps: int
    warm_up: int
    decays: tuple[int, ...]


def length_of(rows: int) -> Length:
    """How long to train on so many rows.

    Raises:
        ValueError: there are none.
    """
    require_positive(rows=rows)
    if rows < SMALL:
        return Length(500, 100, (200, 300, 400))
    if rows < MEDIUM:
        return Length(10_000, 500, (3_000, 6_000, 9_000))
    return Length(20_000, 500, (6_000, 12_000, 18_000))


class BiTHyperRule(Schedule):
    """The rate over time; `hyper_rule: bit` of a run sets the number of steps, the rate and the optimizer too.

    Args:
        rows: of the training set, which decide on the shape.

    Raises:
        ValueError: `rows` is not positive.
    """

    paper = "1912.11370"
    sets_rate_over_time = True

    def __init__(self, rows: int):
        self.rows = rows
        self.length = length_of(rows)

    def rate_over_time(self, step: int, num_steps: int) -> float:
        # The step of the whole-length training that this one is; whole numbers, so that no rounding shifts a step.
        warmed = step * self.length.steps / (num_steps * self.length.warm_up)
        past = sum(step * self.length.steps >= decay * num_steps for decay in self.length.decays)
        return min(1.0, warmed) * 0.1**past
