"""Deep embedded validation: the target risk, estimated on source rows weighted by how likely the target has them.

    risk = mean(w l) + eta mean(w) - eta,   eta = -Cov(w l, w) / Var(w)
    score = -risk

l is the task loss of a labelled source row: cross entropy, squared error for numbers. w = q(f)/p(f) is the
density ratio of its features, from a logistic regression of the domains: (n_source / n_target) P(target | f) /
P(source | f). The control variate eta leaves the mean alone (E w = 1) and takes variance out. Each half of the rows is
weighted by the classifier fitted on the other half.

Paper: You et al., "Towards Accurate Model Selection in Deep Unsupervised Domain Adaptation", ICML 2019,
https://proceedings.mlr.press/v97/you19a.html. The released code fits a small network; a regularised linear
classifier does here. Where it tells the domains apart, as with hundreds of features and a few hundred rows, some rows
carry nearly all the weight and the estimate says little: hold more source rows out (`source_holdout`).
"""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.functional.environments import row_risks
from hf_transfer.validators.rows import labelled_source, split_halves, target_rows


def dev(
    features: Tensor,
    logits: Tensor,
    domain: Tensor | None,
    labels: Tensor | None = None,
    seed: int = 0,
    problem_type: str | None = None,
) -> float:
    """Minus the estimated target risk: (binary) cross entropy in nats, or mean squared error.

    Args:
        features: [N, D].
        logits: [N, C].
        domain: [N], 0 = source, 1 = target.
        labels: [N] classes, or [N] or [N, C] numbers or several labels; those of source rows are read. Give source
            rows that were not trained on.
        seed: of the split into halves.
        problem_type: of the task; told from the labels when left out.

    Raises:
        ValueError: there is no `domain`, no labels, or fewer than two rows of either domain.
    """
    rows = labelled_source(domain, labels)
    target_rows(features, domain)
    kept = rows | (domain == TARGET)
    weights = density_ratios(features[kept].double().numpy(force=True), domain[kept].numpy(force=True), seed)
    losses = row_risks(logits[rows].double(), labels[rows], problem_type).numpy(force=True)
    return -controlled_mean(weights, losses)


def density_ratios(features: np.ndarray, domain: np.ndarray, seed: int = 0) -> np.ndarray:
    """q(f)/p(f) of the source rows, [N_s], each from a classifier that has not seen the row.

    Args:
        features: [N, D].
        domain: [N], 0 = source, 1 = target.
        seed: of the split into halves.
    """
    first = split_halves(domain, seed)
    ratios = np.empty(len(features))
    for fitted, weighed in ((first, ~first), (~first, first)):
        classifier = make_pipeline(StandardScaler(), LogisticRegression(max_iter=1000))
        classifier.fit(features[fitted], domain[fitted] == TARGET)
        odds = np.exp(classifier.decision_function(features[weighed]).clip(-30, 30))
        counts = np.bincount(domain[fitted].astype(int))
        ratios[weighed] = odds * counts[SOURCE] / counts[TARGET]
    return ratios[domain == SOURCE]


def controlled_mean(weights: np.ndarray, losses: np.ndarray) -> float:
    """Mean of weights * losses with the weights, whose mean should be 1, as control variate."""
    weighted = weights * losses
    variance = weights.var()
    eta = -np.cov(weighted, weights, ddof=0)[0, 1] / variance if variance > 0 else 0.0
    return float(weighted.mean() + eta * weights.mean() - eta)
