"""The class shares of an unlabelled target with their error, and what a training makes of them.

    w by `rlls` from a source classifier's answers,   q_j = w_j p_j / sum_k w_k p_k
    error of q: standard deviation over resamples of the held-out source rows and of the target rows
    weighted task loss = (1/n) sum_i w_{y_i} l_i over source rows

Alignment weighs its source rows likewise, so that what is aligned with the target has the target's class shares:
importance-weighted DANN, CDAN and JAN of the paper below, weighted MMD of Yan et al. 2017
(https://huggingface.co/papers/1705.00609). The paper below estimates w anew after each epoch; here it is estimated
once, by a source-only model, so that it is known and said before the adaptation trains.

The estimate holds where rows of a class look alike in both domains. Where they do not, the classifier is less sure on
the target than its certainty on source rows so weighted lets expect, and by about as much less often right: the
difference of confidences of Guillory et al. 2021 (https://huggingface.co/papers/2107.03315), which is told.

Paper: Tachet des Combes et al., "Domain Adaptation with Conditional Distribution Matching and Generalized Label
Shift", NeurIPS 2020, https://huggingface.co/papers/2003.04475
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET
from hf_transfer.domain_adaptation.bbse import confusion_of, separation
from hf_transfer.domain_adaptation.rlls import matching_ridge, ridge_weights

RESAMPLES = 200
FAINT = 0.1
"""Below this `separation` the answers hardly tell some classes apart, and the weights stay near 1 there."""
UNSURE = 0.05
"""Confidence missing on the target from which on it is said that rows of a class look different."""
STANDARD_ERRORS = 3
"""A class whose share differs by less than so many standard errors shows no shift."""
SHOWN_CLASSES = 10


@dataclass(frozen=True)
class LabelShift:
    """Class shares of both domains, in float64.

    Args:
        source: [C], shares of the held-out source rows' labels.
        target: [C], estimated shares of the target's classes, which sum to 1.
        errors: [C], standard errors of `target`.
        weights: [C] w, scaled so that its mean over the source rows is 1.
        predicted: [C], shares of the target's predictions.
        source_rows, target_rows: what was counted.
        separation: how well the answers tell the classes apart, see `hf_transfer.domain_adaptation.bbse`.
        never_predicted: classes that no held-out source row is predicted as.
        missing_confidence: mean probability of the predicted class on weighted source rows, less that on the target.
    """

    source: Tensor
    target: Tensor
    errors: Tensor
    weights: Tensor
    predicted: Tensor
    source_rows: int
    target_rows: int
    separation: float
    never_predicted: tuple[int, ...] = ()
    missing_confidence: float = 0.0

    @classmethod
    def of(
        cls, logits: Tensor, domain: Tensor, labels: Tensor, resamples: int = RESAMPLES, seed: int = 0
    ) -> LabelShift:
        """From what a source classifier says of rows that it was not trained on.

        Args:
            logits: [N, C].
            domain: [N], 0 = source, 1 = target.
            labels: [N] classes; those of source rows are read.
            resamples: of the bootstrap.
            seed: of the bootstrap.

        Raises:
            ValueError: there are no labelled source rows or no target rows.
        """
        classes, answers = logits.shape[1], logits.argmax(dim=1)
        known = (domain == SOURCE) & (labels != IGNORED_LABEL)
        is_target = domain == TARGET
        if not known.any() or not is_target.any():
            missing = "labelled source" if not known.any() else "target"
            raise ValueError(f"class shares are estimated from both domains, and there are no {missing} rows.")
        confusion = confusion_of(answers[known], labels[known], classes)
        predictions = torch.bincount(answers[is_target], minlength=classes).double()
        ridge = matching_ridge(confusion, predictions)
        source, target, weights = estimated(confusion, predictions, ridge)
        generator = np.random.default_rng(seed)
        confidence = logits.double().softmax(dim=1).amax(dim=1)
        expected = (weights[labels[known]] * confidence[known]).mean()
        drawn = [estimated(*resampled(confusion, predictions, generator), ridge)[1] for _ in range(resamples)]
        return cls(
            source,
            target,
            torch.stack(drawn).std(dim=0),
            weights,
            predictions / predictions.sum(),
            int(known.sum()),
            int(is_target.sum()),
            separation(confusion),
            tuple((confusion.sum(dim=1) == 0).nonzero().flatten().tolist()),
            float(expected - confidence[is_target].mean()),
        )

    @property
    def distance(self) -> float:
        """Total variation distance of the target's shares from the source's, in [0, 1]."""
        return float((self.target - self.source).abs().sum() / 2)

    @property
    def prior(self) -> Tensor:
        """[C], the target's shares with one row more of every class, so that none is impossible."""
        return (self.target_rows * self.target + 1) / (self.target_rows + len(self.target))

    @property
    def effective_rows(self) -> float:
        """The share of the source that so many rows of weight 1 would be worth: (sum p w)^2 / sum p w^2."""
        return float(1 / (self.source * self.weights.square()).sum())

    @property
    def is_visible(self) -> bool:
        """Whether the share of some class differs between the domains by more than its error explains."""
        source_errors = (self.source * (1 - self.source) / self.source_rows).sqrt()
        bound = STANDARD_ERRORS * (self.errors.square() + source_errors.square()).sqrt()
        return bool(((self.target - self.source).abs() > bound).any())

    def in_words(self, names: Sequence[str]) -> str:
        """What was found, for the log and the card.

        Args:
            names: of the classes.
        """
        order = (self.target - self.source).abs().argsort(descending=True, stable=True).tolist()
        told = ", ".join(
            f"{names[c]} {self.target[c]:.1%} ± {self.errors[c]:.1%} (source {self.source[c]:.1%})"
            for c in sorted(order[:SHOWN_CLASSES])
        )
        rest = "" if len(order) <= SHOWN_CLASSES else f" and {len(order) - SHOWN_CLASSES} classes that differ less"
        seen = "" if self.is_visible else " No class differs by more than the error explains."
        return (
            f"Class shares of the target, estimated without its labels from {self.source_rows} held-out source rows "
            f"and {self.target_rows} target rows: {told}{rest}; distance from the source's {self.distance:.2f} of 1. "
            f"The source rows so weighted are worth {self.effective_rows:.0%} of them.{seen}"
        )

    def warnings(self, names: Sequence[str]) -> list[str]:
        """What makes the estimate doubtful, a sentence each.

        Args:
            names: of the classes.
        """
        found = []
        unknown = [str(names[c]) for c in (self.source == 0).nonzero().flatten().tolist()]
        if unknown:
            found.append(
                f"Of the classes {', '.join(unknown[:SHOWN_CLASSES])} no source row is held out: nothing is known of "
                "their shares, and their rows keep the weight 1. A larger `source_holdout` helps."
            )
        never = [str(names[c]) for c in self.never_predicted if self.source[c] > 0]
        if never:
            found.append(
                f"The source-only model never predicts {', '.join(never[:SHOWN_CLASSES])} on held-out source rows: "
                "how often these occur in the target cannot be told from its answers. Train it longer."
            )
        elif self.separation < FAINT:
            found.append(
                "The source-only model hardly tells some classes apart on held-out source rows (smallest singular "
                f"value {self.separation:.2f} of 1), and the shares of these are uncertain. Train it longer."
            )
        if self.missing_confidence >= UNSURE:
            found.append(
                "Rows of a class look different in the two domains: on the target the source-only model is "
                f"{self.missing_confidence:.0%} less sure than these shares alone explain, and by about as much less "
                "often right. The shares may be off by as much, beyond their standard errors."
            )
        return found

    def to_dict(self, names: Sequence[str]) -> dict[str, Any]:
        """For `results.json`.

        Args:
            names: of the classes.
        """
        columns = zip(*(values.tolist() for values in (self.source, self.target, self.errors, self.weights)))
        return {
            "of": ["source", "target, estimated", "standard error", "weight"],
            "classes": {str(name): list(row) for name, row in zip(names, columns)},
            "distance": self.distance,
            "source_rows": self.source_rows,
            "target_rows": self.target_rows,
            "separation": self.separation,
            "is_visible": self.is_visible,
            "missing_confidence": self.missing_confidence,
        }


def estimated(confusion: Tensor, predictions: Tensor, ridge: float) -> tuple[Tensor, Tensor, Tensor]:
    """Shares of the source [C], of the target [C], and weights [C] of mean 1 over the source rows.

    Args:
        confusion, predictions, ridge: as of `ridge_weights`.
    """
    source = confusion.sum(dim=0) / confusion.sum()
    weights = ridge_weights(confusion, predictions, ridge)
    mean = (source * weights).sum()
    # every class that has source rows may get the weight 0 where the target is predicted as others alone
    weights = weights / mean if mean > 0 else torch.ones_like(weights)
    return source, source * weights, weights


def resampled(confusion: Tensor, predictions: Tensor, generator: np.random.Generator) -> tuple[Tensor, Tensor]:
    """Both counts of as many rows drawn with replacement.

    Args:
        confusion: [C, C] counts.
        predictions: [C] counts.
        generator: of the draw.
    """
    drawn = []
    for counts in (confusion, predictions):
        flat = counts.flatten().numpy()
        rows = generator.multinomial(int(flat.sum()), flat / flat.sum())
        drawn.append(torch.from_numpy(rows).double().reshape(counts.shape))
    return drawn[0], drawn[1]
