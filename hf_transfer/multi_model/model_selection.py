"""Models chosen one after the other by how well their features together explain the labels.

    S' = S + {k}  for the k of highest  LogME([f_j, j in S], f_k),   while it rises

f_j [N, D_j] are the features of model j on the labelled rows; [ ] puts them side by side. The second moments of all
features together are computed once, and every candidate set is a part of them.

Paper: LogME by You et al., ICML 2021, https://huggingface.co/papers/2102.11005; choosing several models for one target
by a transferability metric as in Agostinelli et al., CVPR 2022, https://huggingface.co/papers/2111.13011.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.functional.evidence import SecondMoments, maximum_evidence


@dataclass(frozen=True)
class Selection:
    """The chosen models.

    Args:
        chosen: their places, in the order in which they were chosen.
        scores: LogME of the features of the first one, the first two, and so on.
    """

    chosen: tuple[int, ...]
    scores: tuple[float, ...]


def greedy_selection(features: Sequence[Tensor], labels: Tensor, most: int | None = None) -> Selection:
    """Choose models by the LogME of their features side by side.

    Args:
        features: [N, D_k] of every model, on the same rows.
        labels: [N] classes, or numbers [N] or [N, C].
        most: how many at most; all where their evidence goes on rising, when left out.

    Raises:
        ValueError: no features, other numbers of rows, or `most` out of its range.
    """
    if not features or any(len(one) != len(labels) for one in features):
        rows = [len(one) for one in features]
        raise ValueError(f"`features` should have {len(labels)} rows of every model, as `labels`; got {rows}.")
    most = len(features) if most is None else most
    if not 1 <= most <= len(features):
        raise ValueError(f"`most` should be from 1 to {len(features)}, the number of models, got {most}.")
    is_class = labels.ndim == 1 and not labels.is_floating_point()
    targets = F.one_hot(labels.long()) if is_class else labels.reshape(len(labels), -1)
    moments = SecondMoments(sum(one.shape[1] for one in features), targets.shape[1])
    moments.add(torch.cat(list(features), dim=1), targets)
    columns = torch.arange(moments.gram.shape[0]).split([one.shape[1] for one in features])
    chosen: list[int] = []
    scores: list[float] = []
    while len(chosen) < most:
        rest = [index for index in range(len(features)) if index not in chosen]
        values = [score_of(moments, torch.cat([columns[k] for k in (*chosen, index)])) for index in rest]
        best = max(range(len(rest)), key=lambda index: values[index])
        if scores and values[best] <= scores[-1]:
            break
        chosen.append(rest[best])
        scores.append(values[best])
    return Selection(tuple(chosen), tuple(scores))


def score_of(moments: SecondMoments, columns: Tensor) -> float:
    """LogME of some columns of the features."""
    whole = moments.gram.tril() + moments.gram.tril(-1).T
    gram = whole[columns][:, columns]
    return maximum_evidence(gram, moments.cross[columns], moments.energy, moments.rows).score
