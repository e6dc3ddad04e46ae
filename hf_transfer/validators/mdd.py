"""The two terms of the margin disparity discrepancy bound that can be estimated: source error and disparity.

    score = -( E_source 1[f(x) != y] + sup over f' of E_target 1[f' != f] - E_source 1[f' != f] )

f' is a small perceptron on the features. It is fitted on half of the rows, on the smooth surrogate of MDD with margin
factor 1, and the disagreements are counted on the other half; both halves take each part once. Without the source
error a model that predicts one class everywhere would be the best.

Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.functional.margin_disparity import margin_disparity_discrepancy
from hf_transfer.validators.held_out import held_out_supremum
from hf_transfer.validators.rows import target_rows
from hf_transfer.validators.source_accuracy import source_accuracy


def mdd(features: Tensor, logits: Tensor, domain: Tensor | None, labels: Tensor | None = None, seed: int = 0) -> float:
    """Minus source error minus held-out disparity.

    Args:
        features: [N, D].
        logits: [N, C], C >= 2.
        domain: [N], 0 = source, 1 = target.
        labels: [N] integers; those of source rows are read.
        seed: of the split into halves and the adversary's first weights.

    Raises:
        ValueError: there is no `domain`, no class labels, or fewer than two rows of either domain.
    """
    target_rows(features, domain)
    source_error = 1.0 - source_accuracy(features, logits, domain, labels)
    return -(source_error + held_out_disparity(features.float(), logits.float(), domain, seed))


def held_out_disparity(features: Tensor, logits: Tensor, domain: Tensor, seed: int = 0) -> float:
    """E_target 1[f' != f] - E_source 1[f' != f] of a fitted adversary, on rows it was not fitted on.

    Args:
        features: [N, D].
        logits: [N, C].
        domain: [N], 0 = source, 1 = target.
        seed: of the split into halves and the adversary's first weights.
    """

    def surrogate(adversarial: Tensor, logits: Tensor, domain: Tensor) -> Tensor:
        pairs = [(logits[domain == value], adversarial[domain == value]) for value in (SOURCE, TARGET)]
        return margin_disparity_discrepancy(*pairs[0], *pairs[1], margin=1.0)

    def gap(adversarial: Tensor, logits: Tensor) -> Tensor:
        return adversarial.argmax(dim=1) != logits.argmax(dim=1)

    return held_out_supremum(features, logits, domain, surrogate, gap, seed)
