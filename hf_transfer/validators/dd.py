"""The two terms of a regression's disparity discrepancy bound that can be estimated: source error and disparity.

    score = -( E_source |f(x) - y| + sup over f' of E_target |f' - f| - E_source |f' - f| )
    f' = low + (high - low) sigmoid(perceptron on the features)

Errors are shares of the range [low, high] of the source labels, on average over the numbers of a label. The answers of
f' stay in that range: without a bound the supremum is infinite wherever the features tell the domains apart. f' is
fitted on half of the rows and counted on the other half; both halves take each part once.

Papers: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801 (the disparity, with the absolute error as in its released regression code);
bounded errors as in Mansour et al., "Domain Adaptation: Learning Bounds and Algorithms", COLT 2009,
https://huggingface.co/papers/0902.3430
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.validators.held_out import held_out_supremum
from hf_transfer.validators.rows import labelled_source, target_rows


def dd(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None, seed: int = 0) -> float:
    """Minus source error minus held-out disparity, in shares of the range of the source labels.

    Args:
        features: [N, D].
        logits: [N, C], the numbers predicted.
        domain: [N], 0 = source, 1 = target.
        labels: floats [N] or [N, C]; those of source rows are read.
        seed: of the split into halves and the adversary's first weights.

    Raises:
        ValueError: there is no `domain`, no labels, they are class numbers or all the same, or fewer than two rows of
            either domain.
    """
    rows = labelled_source(domain, labels)
    target_rows(features, domain)
    if not labels.is_floating_point():
        raise ValueError("this validator is for numbers to predict, and the labels are classes: `mdd` is theirs.")
    known = labels.reshape(logits.shape)[rows].float()
    low, span = known.amin(dim=0), known.amax(dim=0) - known.amin(dim=0)  # [C]
    if not (span > 0).all():
        raise ValueError("this validator measures errors in shares of the labels' range, and all labels are the same.")
    answers = (logits.float() - low) / span
    source_error = (answers[rows] - (known - low) / span).abs().mean().item()
    return -(source_error + held_out_disparity(features.float(), answers, domain, seed))


def held_out_disparity(features: Tensor, answers: Tensor, domain: Tensor, seed: int = 0) -> float:
    """E_target |f' - f| - E_source |f' - f| of a fitted adversary in [0, 1], on rows it was not fitted on.

    Args:
        features: [N, D].
        answers: [N, C], shares of the range.
        domain: [N], 0 = source, 1 = target.
        seed: of the split into halves and the adversary's first weights.
    """

    def gap(adversarial: Tensor, answers: Tensor) -> Tensor:
        return (adversarial.sigmoid() - answers).abs().mean(dim=1)

    def surrogate(adversarial: Tensor, answers: Tensor, domain: Tensor) -> Tensor:
        gaps = gap(adversarial, answers)
        return gaps[domain == TARGET].mean() - gaps[domain == SOURCE].mean()

    return held_out_supremum(features, answers, domain, surrogate, gap, seed)
