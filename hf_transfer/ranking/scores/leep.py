"""LEEP: log expected empirical prediction of the target labels by the source head.

    P(y, z) = 1/n sum_n theta(x_n)_z [y_n = y],   P(y | z) = P(y, z) / P(z)
    LEEP = 1/n sum_n log sum_z P(y_n | z) theta(x_n)_z

The joint distribution is a sum over all rows; the mean of logs that follows needs rows again, and is taken over all of
them up to `max_rows`, over a sample beyond.

Paper: Nguyen et al., ICML 2020, https://huggingface.co/papers/2002.12462
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor

from hf_transfer.ranking.reservoir import ReservoirScore
from hf_transfer.ranking.score import Statistics, check_classes, target_columns


def leep(probabilities: Tensor, labels: Tensor) -> float:
    """LEEP of the source head's probabilities [n, Z] and target labels [n]."""
    probabilities = probabilities.double()
    joint = probabilities.T @ target_columns(labels).to(probabilities.device)
    return float(log_expected_predictions(probabilities, labels, joint).mean())


def log_expected_predictions(probabilities: Tensor, labels: Tensor, joint: Tensor) -> Tensor:
    """log sum_z P(y_n | z) theta(x_n)_z [n]; a source class without mass predicts nothing."""
    mass = joint.sum(dim=1, keepdim=True)
    conditional = torch.where(mass > 0, joint / mass.clamp(min=torch.finfo(joint.dtype).tiny), 0)
    expected = (probabilities @ conditional).gather(1, labels.long().unsqueeze(1)).squeeze(1)
    return expected.clamp(min=torch.finfo(expected.dtype).tiny).log()


class LEEP(ReservoirScore):
    """Streaming LEEP; higher is better. `update` takes the source head's probabilities [B, Z] and labels [B]."""

    paper: ClassVar[str] = "2002.12462"
    reads: ClassVar[str] = "probabilities"

    def check(self, features: Tensor, labels: Tensor) -> None:
        super().check(features, labels)
        check_classes(self, labels)

    def statistics(self, features: Tensor, labels: Tensor, rows: Tensor) -> Statistics:
        joint = features.T @ target_columns(labels).to(features.device)
        return super().statistics(features, labels, rows) | {"joint": joint}

    def value(self, statistics: Statistics) -> tuple[float, dict[str, Any]]:
        logs = self._logs(statistics)
        rows = round(float(statistics["joint"].sum()))
        return float(logs.mean()), {"rows": rows, "rows_kept": len(logs)}

    def leave_one_out(self, shards: Sequence[Statistics], total: Statistics) -> list[float]:
        # The joint distribution without a shard is a subtraction; nothing else depends on the shard but its rows.
        replicates = []
        for index, shard in enumerate(shards):
            joint = torch.nn.functional.pad(shard["joint"], (0, total["joint"].shape[1] - shard["joint"].shape[1]))
            rest = [other for number, other in enumerate(shards) if number != index]
            kept = {name: torch.cat([other[name] for other in rest]) for name in ("features", "labels")}
            replicates.append(float(self._logs(kept | {"joint": (total["joint"] - joint).clamp(min=0)}).mean()))
        return replicates

    def _logs(self, statistics: Statistics) -> Tensor:
        return log_expected_predictions(statistics["features"].double(), statistics["labels"], statistics["joint"])
