"""NCE: negative conditional entropy of the target labels given the source head's predicted class.

    z_n = argmax of the source head,   P(y, z) = count(y, z) / n
    NCE = -H(Y | Z) = sum_{y, z} P(y, z) log P(y | z)

Paper: Tran et al., ICCV 2019, https://huggingface.co/papers/1908.08142
"""

from __future__ import annotations

from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.score import Statistics, TransferabilityScore, check_classes, target_columns


def nce(source_classes: Tensor, labels: Tensor) -> float:
    """NCE of predicted source classes [n] and target labels [n]."""
    sources, targets = target_columns(source_classes), target_columns(labels)
    return negative_conditional_entropy(sources.T @ targets)


def negative_conditional_entropy(joint: Tensor) -> float:
    """sum P(y, z) log P(y | z) of counts [Z, C]; what never occurs adds nothing."""
    conditional = joint / joint.sum(dim=1, keepdim=True).clamp(min=torch.finfo(joint.dtype).tiny)
    return float(torch.xlogy(joint, conditional).sum() / joint.sum())


class NCE(TransferabilityScore):
    """Streaming NCE; higher is better. `update` takes the source head's probabilities [B, Z] and labels [B]."""

    paper: ClassVar[str] = "1908.08142"
    reads: ClassVar[str] = "probabilities"

    def check(self, features: Tensor, labels: Tensor) -> None:
        super().check(features, labels)
        check_classes(self, labels)

    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        sources = torch.zeros_like(features).scatter_(1, features.argmax(dim=1, keepdim=True), 1)
        return {"joint": sources.T @ target_columns(labels).to(features.device)}

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        joint = statistics["joint"]
        used = int((joint.sum(dim=1) > 0).sum())
        return negative_conditional_entropy(joint), {"rows": round(float(joint.sum())), "source_classes_used": used}
