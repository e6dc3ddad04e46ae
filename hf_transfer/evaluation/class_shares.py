"""How often each class is predicted on the target, beside its share of the source's labels.

    distance = 1/2 sum_c |q_c - p_c|,   p_c: share of the source's labels, q_c: share of the target's predictions

No target label is read. Methods that make the domains look alike, and validators that ask for certain or even
predictions, take the classes to be about as frequent in both domains. Where they are not, a method may collapse to one
class and a validator may prefer the worse model. A far-off prediction may also be right; that it is far off is said.

Paper: Zhao et al., "On Learning Invariant Representations for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1901.09453: with features that look alike in both domains, the errors on both together
cannot be small where the label shares are far apart.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET

COLLAPSED, MORE_THAN_SOURCE = 0.95, 0.1
"""A collapse: so large a share of the target is predicted as one class, and so much larger than in the source."""
EXPECTED_ROWS = 10
"""A class of which the source's share lets so many target rows be expected, and none is predicted, is missed."""
FAR = 0.2
"""Distance of class shares from which on they are called far apart."""


@dataclass(frozen=True)
class ClassShares:
    """Of one model.

    Args:
        source: [C], shares of the source's labels.
        target: [C], shares of the target's predictions.
        target_rows: of how many rows.
    """

    source: Tensor
    target: Tensor
    target_rows: int

    @classmethod
    def of(cls, logits: Tensor, domain: Tensor, labels: Tensor) -> ClassShares:
        """From a classifier's logits [N, C], domain [N] and labels [N], of which those of source rows are read."""
        classes = logits.shape[1]
        known = labels[(domain == SOURCE) & (labels != IGNORED_LABEL)]
        predicted = logits[domain == TARGET].argmax(dim=1)
        counts = [torch.bincount(values.long(), minlength=classes).double() for values in (known, predicted)]
        return cls(*(count / count.sum().clamp(min=1) for count in counts), len(predicted))

    @property
    def distance(self) -> float:
        """Of the target's predictions from the source's labels, in [0, 1]."""
        return distance_of_shares(self.source, self.target)

    def warnings(
        self, names: Sequence[str], label_spaces: Collection[str] = (), expected: Tensor | None = None
    ) -> list[str]:
        """What looks wrong, a sentence each.

        Args:
            names: of the classes.
            label_spaces: of the run's objectives; a target with only some classes, or with others, is expected to
                differ.
            expected: [C], shares of the target that were estimated and trained by, where they were.
        """
        top, share = int(self.target.argmax()), float(self.target.max())
        has_collapsed = share >= COLLAPSED and share - float(self.source[top]) >= MORE_THAN_SOURCE
        found = []
        if has_collapsed:
            found.append(
                f"{share:.0%} of the target rows are predicted as `{names[top]}`, which has {self.source[top]:.0%} of "
                "the source's labels: the predictions may have collapsed."
            )
        if not set(label_spaces) <= {"closed"}:
            return found
        missed = (self.target == 0) & (self.source * self.target_rows >= EXPECTED_ROWS)
        if missed.any():
            listed = [f"`{names[c]}` ({self.source[c]:.0%} of the source)" for c in missed.nonzero().flatten()[:10]]
            found.append(f"Never predicted on the target: {', '.join(listed)}.")
        apart = self.distance if expected is None else distance_of_shares(expected, self.target)
        if apart >= FAR and expected is not None:
            found.append(
                "The class shares predicted on the target are far from those that were estimated before the training "
                f"(distance {apart:.2f} of 1): one of both is wrong. Check on some labelled target rows "
                "(`test_dataset`)."
            )
        elif apart >= FAR:
            found.append(
                "The class shares predicted on the target are far from those of the source (distance "
                f"{self.distance:.2f} of 1). If the classes are as frequent in both domains, predictions are wrong; "
                "if they are not, methods that align whole domains and validators that ask for certain or even "
                "predictions may prefer the worse model: `label_shift: correct` estimates the target's shares and "
                "trains by them; check on some labelled target rows (`test_dataset`)."
            )
        return found


def distance_of_shares(first: Tensor, second: Tensor) -> float:
    """Total variation distance of two vectors of shares [C], in [0, 1]."""
    return float((first - second).abs().sum() / 2)
