"""How far two domains are apart under a model's features, and what the theory then allows on the target.

P is the source, Q the target, H the hypotheses: perceptrons on the features. Every supremum is followed on one half of
the rows by gradient steps on a smooth surrogate, and its value is counted on the other half, in disagreements:

    A-distance     2 (1 - 2 err),   err of a linear classifier that tells P from Q
    HdH            sup over h, h' in H of |E_Q 1[h != h'] - E_P 1[h != h']|
    disparity      sup over h' in H of E_Q 1[h' != h] - E_P 1[h' != h],   h the model
    localised      the same with h' in H_r = {h' : E_P L(h'(x), y) <= r},   r = the risk of the best head found + slack

    eps_Q(h) <= eps_P(h) + discrepancy + eps_ideal,   eps_ideal = min over h* in H of eps_P(h*) + eps_Q(h*)

holds for HdH and the disparity up to a term that falls with the number of rows, and for the localised one where the
ideal hypothesis lies in H_r. A gradient search finds less than the supremum, so an estimate may be too small; h' = h
gives a disparity of 0, which counts where the adversary found does worse on the rows that it has not seen.

Papers: Ben-David et al., "A theory of learning from different domains", Machine Learning 2010,
https://doi.org/10.1007/s10994-009-5152-4 (A-distance, HdH); Zhang et al., "Bridging Theory and Algorithm for Domain
Adaptation", ICML 2019, https://huggingface.co/papers/1904.05801 (disparity); Zhang et al., "On Localized Discrepancy
for Domain Adaptation", https://huggingface.co/papers/2008.06242 (localised). Standard errors over random splits:
sqrt((1/k + 1) var), Nadeau and Bengio, "Inference for the Generalization Error", Machine Learning 2003,
https://doi.org/10.1023/A:1024068626366, with as many rows counted as fitted.
"""

from __future__ import annotations

import copy
import math
import statistics
from collections.abc import Callable
from dataclasses import dataclass, replace

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression
from torch import Tensor, nn

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.functional.hypotheses import fit, perceptron, standardised
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.margin_disparity import margin_disparity_discrepancy

LEAST_ROWS = 4
"""Of a domain: two to fit on and two to count."""
PENALTY = 20.0
"""Price of every nat of source risk beyond r."""
TINY = 1e-6


@dataclass(frozen=True)
class DomainRows:
    """Rows of one domain under a model.

    Args:
        features: [N, D].
        labels: [N] class numbers, -100 where unknown; None where there are none.
        predictions: [N] classes that the model gives; None for a model without a head.
    """

    features: Tensor
    labels: Tensor | None = None
    predictions: Tensor | None = None

    def rows(self, keep: Tensor) -> DomainRows:
        """Some of them, by a mask or by places."""
        return DomainRows(*(None if value is None else value[keep] for value in vars(self).values()))

    @property
    def known(self) -> Tensor | None:
        """Which rows have a label, [N]; None where no row has."""
        known = None if self.labels is None else self.labels != IGNORED_LABEL
        return known if known is not None and known.any() else None


@dataclass(frozen=True)
class Estimate:
    """A mean over splits, with its standard error (None for one split)."""

    value: float
    standard_error: float | None
    splits: int

    @classmethod
    def of(cls, values: list[float]) -> Estimate:
        spread = math.sqrt((1 / len(values) + 1) * statistics.variance(values)) if len(values) > 1 else None
        return cls(statistics.mean(values), spread, len(values))


def estimate_divergences(
    source: DomainRows, target: DomainRows, *, splits: int = 5, slack: float = 0.05, seed: int = 0
) -> dict[str, Estimate]:
    """Every divergence and error that the data allow, by name.

    `a_distance` always; `hdh`; with source labels or a model's predictions `disparity`; with source labels
    `source_error` and `localized_disparity`; with target labels too `target_error` and `ideal_joint_error`. Where
    the model has no head of its own, h is the hypothesis fitted on the labelled source rows of the split.

    Args:
        source: P.
        target: Q; its labels only enter the two errors.
        splits: random halves to average over.
        slack: nats of source risk over that of the best head found which a localised hypothesis may have.
        seed: of the splits and of the first weights.

    Raises:
        ValueError: fewer than four rows of a domain, features of different widths, or an option out of range.
    """
    check_request(len(source.features), len(target.features), splits, slack)
    if source.features.shape[1] != target.features.shape[1]:
        widths = (source.features.shape[1], target.features.shape[1])
        raise ValueError(f"source and target features should have one width, got {widths[0]} and {widths[1]}.")
    source, target = on_one_scale(source, target)
    classes = class_count(source, target)
    found: dict[str, list[float]] = {}
    for index in range(splits):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + index)
        halves = [_halves(rows, generator) for rows in (source, target)]
        for name, value in Split(*halves, classes, slack, generator).estimates().items():
            found.setdefault(name, []).append(value)
    return {name: Estimate.of(values) for name, values in found.items()}


def check_request(source_rows: int, target_rows: int, splits: int, slack: float) -> None:
    """Raises ValueError when a domain has too few rows or an option is out of range."""
    require_positive(splits=splits, slack=slack)
    if min(source_rows, target_rows) < LEAST_ROWS:
        raise ValueError(
            f"each domain needs at least {LEAST_ROWS} rows, got {source_rows} of the source and {target_rows} of the "
            "target: one half is fitted on, the other counted."
        )


def on_one_scale(source: DomainRows, target: DomainRows) -> tuple[DomainRows, DomainRows]:
    """Features of mean 0 and deviation 1 over both domains together."""
    both = standardised(torch.cat([source.features, target.features]).float())
    count = len(source.features)
    return replace(source, features=both[:count]), replace(target, features=both[count:])


def class_count(*domains: DomainRows) -> int:
    """Classes of a hypothesis: all that labels and predictions name, and at least two."""
    numbers = [value for rows in domains for value in (rows.labels, rows.predictions) if value is not None]
    return max([2, *(int(value.max()) + 1 for value in numbers)])


def _halves(rows: DomainRows, generator: torch.Generator) -> tuple[DomainRows, DomainRows]:
    order = torch.randperm(len(rows.features), generator=generator)
    return rows.rows(order[: len(order) // 2]), rows.rows(order[len(order) // 2 :])


class Split:
    """All estimates of one split: hypotheses are fitted on the first half of each domain, and counted on the second.

    Args:
        source: the two halves of P.
        target: the two halves of Q.
        classes: C.
        slack: as in `estimate_divergences`.
        generator: of the first weights.
    """

    def __init__(
        self,
        source: tuple[DomainRows, DomainRows],
        target: tuple[DomainRows, DomainRows],
        classes: int,
        slack: float,
        generator: torch.Generator,
    ):
        self.source, self.target = source, target
        self.classes, self.slack, self.generator = classes, slack, generator

    def estimates(self) -> dict[str, float]:
        """Value by name, of all that the data allow."""
        values = {"a_distance": self.a_distance(), "hdh": self.hdh()}
        head = None if self.source[0].known is None else self.fitted_head(self.source[0])
        if head is None and self.source[0].predictions is None:
            return values
        answers = [self.answers(rows, head) for rows in (self.source, self.target)]
        values["disparity"] = self.disparity(*answers)
        if head is None:
            return values
        values["localized_disparity"] = self.localized_disparity(head, *answers)
        if self.source[1].known is None:
            return values
        values["source_error"] = error(answers[0][1], self.source[1])
        if self.target[0].known is not None and self.target[1].known is not None:
            values["target_error"] = error(answers[1][1], self.target[1])
            values["ideal_joint_error"] = self.ideal_joint_error()
        return values

    def answers(self, halves: tuple[DomainRows, DomainRows], head: nn.Module | None) -> list[Tensor]:
        """h of both halves: the model's own answers where it has a head, or else the fitted head's."""
        return [
            rows.predictions if rows.predictions is not None else head(rows.features).argmax(dim=1) for rows in halves
        ]

    def a_distance(self) -> float:
        """2 (1 - 2 err), each domain with half of the weight; below 0 where chance has it so."""
        classifier = LogisticRegression(max_iter=1000, class_weight="balanced")
        fitted = torch.cat([self.source[0].features, self.target[0].features]).double().numpy()
        classifier.fit(fitted, np.repeat([0, 1], [len(self.source[0].features), len(self.target[0].features)]))
        errors = [
            float((classifier.predict(rows.features.double().numpy()) != domain).mean())
            for domain, rows in enumerate((self.source[1], self.target[1]))
        ]
        return 2.0 * (1.0 - sum(errors))

    def hdh(self) -> float:
        """The larger of both signs: a pair that agrees on P and disagrees on Q, and the other way round."""
        values = []
        for agreeing, disagreeing in ((self.source, self.target), (self.target, self.source)):
            pair = nn.ModuleList([self.new_head(), self.new_head()])

            def loss(pair=pair, agree=agreeing[0].features, differ=disagreeing[0].features) -> Tensor:
                same = [sum_of_products(pair, features).clamp(TINY, 1 - TINY) for features in (agree, differ)]
                return -(same[0].log().mean() + (1 - same[1]).log().mean())

            fit(pair, loss)
            counted = [disagreement(pair, rows[1].features) for rows in (agreeing, disagreeing)]
            values.append(abs(counted[1] - counted[0]))
        return max(values)

    def disparity(self, source_answers: list[Tensor], target_answers: list[Tensor]) -> float:
        """Of an adversary that starts anywhere in H."""
        return self._supremum(self.new_head(), source_answers, target_answers)

    def localized_disparity(
        self, head: nn.Module, source_answers: list[Tensor], target_answers: list[Tensor]
    ) -> float:
        """Of an adversary that starts at the head fitted on the source and may not leave H_r."""
        known = self.source[0].known
        features, labels = self.source[0].features[known], self.source[0].labels[known]
        with torch.no_grad():
            radius = F.cross_entropy(head(features), labels) + self.slack

        def excess(adversary: nn.Module) -> Tensor:
            return PENALTY * torch.relu(F.cross_entropy(adversary(features), labels) - radius)

        return self._supremum(copy.deepcopy(head), source_answers, target_answers, excess)

    def _supremum(
        self,
        adversary: nn.Module,
        source_answers: list[Tensor],
        target_answers: list[Tensor],
        price: Callable[[nn.Module], Tensor] = lambda adversary: torch.zeros(()),
    ) -> float:
        one_hot = [F.one_hot(answers[0], self.classes).float() for answers in (source_answers, target_answers)]
        adversary.requires_grad_(True)

        def loss() -> Tensor:
            logits = [adversary(rows[0].features) for rows in (self.source, self.target)]
            disparity = margin_disparity_discrepancy(one_hot[0], logits[0], one_hot[1], logits[1], margin=1.0)
            return price(adversary) - disparity

        fit(adversary, loss)
        rates = [
            (adversary(rows[1].features).argmax(dim=1) != answers[1]).double().mean()
            for rows, answers in ((self.source, source_answers), (self.target, target_answers))
        ]
        return max(0.0, (rates[1] - rates[0]).item())

    def ideal_joint_error(self) -> float:
        """eps_P(h*) + eps_Q(h*) of one head fitted on the labels of both domains, each with half of the weight."""
        head = self.fitted_head(self.source[0], self.target[0])
        return sum(error(head(rows.features).argmax(dim=1), rows) for rows in (self.source[1], self.target[1]))

    def fitted_head(self, *domains: DomainRows) -> nn.Module:
        """The hypothesis fitted on the labels, by cross entropy."""
        head = self.new_head()
        labelled = [rows.rows(rows.known) for rows in domains]
        fit(head, lambda: sum(F.cross_entropy(head(rows.features), rows.labels) for rows in labelled))
        return head

    def new_head(self) -> nn.Module:
        return perceptron(self.source[0].features.shape[1], self.classes, self.generator)


def sum_of_products(pair: nn.ModuleList, features: Tensor) -> Tensor:
    """Probability [N] that two hypotheses draw the same class."""
    first, second = (head(features).softmax(dim=1) for head in pair)
    return (first * second).sum(dim=1)


def disagreement(pair: nn.ModuleList, features: Tensor) -> float:
    """Share of rows on which two hypotheses differ."""
    first, second = (head(features).argmax(dim=1) for head in pair)
    return (first != second).double().mean().item()


def error(answers: Tensor, rows: DomainRows) -> float:
    """Share of the labelled rows that are answered wrongly."""
    known = rows.labels != IGNORED_LABEL
    return (answers[known] != rows.labels[known]).double().mean().item()


BOUNDS = {"HdH": "hdh", "disparity discrepancy": "disparity", "localised disparity": "localized_disparity"}
"""Name of a bound -> its discrepancy."""


def bound_table(estimates: dict[str, Estimate]) -> list[dict[str, float | str | None]]:
    """A row a bound: source error, discrepancy, ideal joint error, their sum and the true target error; None where
    labels to estimate a term are missing.
    """
    table = []
    for name, discrepancy in BOUNDS.items():
        terms = {
            term: estimates[key].value if key in estimates else None
            for term, key in (
                ("source_error", "source_error"),
                ("discrepancy", discrepancy),
                ("ideal_joint_error", "ideal_joint_error"),
            )
        }
        is_whole = all(value is not None for value in terms.values())
        target = estimates["target_error"].value if "target_error" in estimates else None
        whole = sum(terms.values()) if is_whole else None
        table.append({"bound": name, **terms, "sum": whole, "target_error": target})
    return table
