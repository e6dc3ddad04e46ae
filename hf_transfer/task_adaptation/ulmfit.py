"""ULMFiT: lower layers learn more slowly, all of them first faster and then slower, and they thaw from the top down.

    rate(index) = decay^-index                                                    (discriminative fine-tuning)
    rate_over_time(t) = (1 + p (ratio - 1)) / ratio,   cut = floor(T cut_fraction)    (slanted triangular)
        p = t / cut  where t < cut,   p = 1 - (t - cut) / (T - cut)  after it
    a layer rests until progress = unfreeze_until index / deepest index           (gradual unfreezing)

Paper: Howard and Ruder, "Universal Language Model Fine-tuning for Text Classification", ACL 2018,
https://huggingface.co/papers/1801.06146. decay 2.6, cut fraction .1 and ratio 32 as in the paper, which thaws one
layer an epoch; here the layers thaw evenly over a share of the training, half of it by default, so that a deep model
trained for few epochs thaws too.
"""

from __future__ import annotations

from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.task_adaptation.schedule import Schedule


class ULMFiT(Schedule):
    """Discriminative rates, a slanted triangular schedule and gradual unfreezing.

    Args:
        decay: quotient of the rates of two neighbouring layers, > 0; 1 gives all the same rate.
        cut_fraction: share of the training in which the rates rise, in (0, 1).
        ratio: quotient of the highest and the lowest rate, > 0.
        unfreeze_until: share of the training after which all layers train, in [0, 1]; 0 thaws all at once.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1801.06146"
    sets_rate_over_time = True

    def __init__(
        self, decay: float = 2.6, cut_fraction: float = 0.1, ratio: float = 32.0, unfreeze_until: float = 0.5
    ):
        require_positive(decay=decay, ratio=ratio)
        if not 0 < cut_fraction < 1:
            raise ValueError(f"`cut_fraction` should be in (0, 1), got {cut_fraction}.")
        if not 0 <= unfreeze_until <= 1:
            raise ValueError(f"`unfreeze_until` should be in [0, 1], got {unfreeze_until}.")
        self.decay = decay
        self.cut_fraction = cut_fraction
        self.ratio = ratio
        self.unfreeze_until = unfreeze_until

    def rate(self, index: int) -> float:
        return self.decay**-index

    def is_frozen(self, index: int, deepest: int, progress: float) -> bool:
        return progress < self.unfreeze_until * index / deepest

    def rate_over_time(self, step: int, num_steps: int) -> float:
        cut = int(num_steps * self.cut_fraction)
        height = step / cut if step < cut else 1.0 - (step - cut) / max(1, num_steps - cut)
        return (1.0 + max(0.0, height) * (self.ratio - 1.0)) / self.ratio
