"""Jaccard distance of k-reciprocal neighbours: two rows are near where they are near to the same rows.

    N(i)  = the k nearest rows of i, itself among them            R(i) = { j in N(i) : i in N(j) }
    R*(i) = R(i) and each R(j), of k/2 neighbours, of which more than 2/3 is in R(i), j in R(i)
    v_ij  = exp(-d_ij) / sum over R*(i) where j in R*(i), else 0; then the mean of the v of the 6 nearest rows of i
    J(i, j) = 1 - sum_c min(v_ic, v_jc) / sum_c max(v_ic, v_jc),   d the squared distance at unit length

Paper: Zhong et al., "Re-ranking Person Re-identification with k-reciprocal Encoding", CVPR 2017,
https://huggingface.co/papers/1701.08398; k = 30 and the mean over 6 as SpCL and Cluster Contrast set them.
"""

from __future__ import annotations

import numpy as np

AVERAGED = 6
SHARED = 2 / 3


def jaccard_distances(features: np.ndarray, neighbours: int = 30) -> np.ndarray:
    """Distances [N, N] in [0, 1].

    Args:
        features: [N, D] of unit length.
        neighbours: k; at most N.
    """
    distances = np.clip(2 - 2 * features @ features.T, 0, None)
    order = np.argsort(distances, axis=1, kind="stable")
    count = min(neighbours, len(features))
    near, closer = reciprocal(order, count), reciprocal(order, max(1, count // 2))
    members = near.copy()
    for row in range(len(features)):
        candidates = np.flatnonzero(near[row])
        inside = closer[candidates] & near[row]
        joins = inside.sum(axis=1) > SHARED * closer[candidates].sum(axis=1)
        members[row] |= closer[candidates[joins]].any(axis=0)
    weights = np.where(members, np.exp(-distances), 0.0)
    weights /= weights.sum(axis=1, keepdims=True)
    weights = weights[order[:, : min(AVERAGED, count)]].mean(axis=1)
    shared = np.empty_like(distances)
    for row, own in enumerate(weights):  # a row of weights has few that are not 0
        columns = np.flatnonzero(own)
        shared[row] = np.minimum(weights[:, columns], own[columns]).sum(axis=1)
    return np.clip(1 - shared / (2 - shared), 0, 1)  # rows sum to 1, so that sum max = 2 - sum min


def reciprocal(order: np.ndarray, count: int) -> np.ndarray:
    """[N, N], whether i and j are among the `count` nearest rows of each other; `order` [N, N] sorts by distance."""
    near = np.zeros(order.shape, dtype=bool)
    np.put_along_axis(near, order[:, :count], True, axis=1)
    return near & near.T
