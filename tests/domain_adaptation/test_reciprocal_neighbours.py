"""Jaccard distances against loops over sets, as the paper says them."""

import numpy as np
import pytest

from hf_transfer.domain_adaptation.reciprocal_neighbours import jaccard_distances


def unit(rows: int, width: int = 4, seed: int = 0) -> np.ndarray:
    drawn = np.random.default_rng(seed).normal(size=(rows, width))
    return drawn / np.linalg.norm(drawn, axis=1, keepdims=True)


def naive(features: np.ndarray, k: int) -> np.ndarray:
    count = len(features)
    d = np.array([[np.sum((a - b) ** 2) for b in features] for a in features])
    order = [sorted(range(count), key=lambda j, i=i: d[i, j]) for i in range(count)]

    def mutual(i: int, k: int) -> set[int]:
        return {j for j in order[i][:k] if i in order[j][:k]}

    v = np.zeros((count, count))
    for i in range(count):
        members = set(mutual(i, k))
        for j in mutual(i, k):
            further = mutual(j, max(1, k // 2))
            if len(further & mutual(i, k)) > 2 / 3 * len(further):
                members |= further
        total = sum(np.exp(-d[i, j]) for j in members)
        for j in members:
            v[i, j] = np.exp(-d[i, j]) / total
    v = np.array([np.mean([v[j] for j in order[i][: min(6, k)]], axis=0) for i in range(count)])
    return np.array([[1 - np.minimum(a, b).sum() / np.maximum(a, b).sum() for b in v] for a in v])


@pytest.mark.parametrize(("rows", "k"), [(20, 7), (12, 30), (9, 1)])
def test_distances_against_loops(rows, k):
    features = unit(rows)
    found = jaccard_distances(features, k)
    np.testing.assert_allclose(found, naive(features, min(k, rows)), atol=1e-9)
    np.testing.assert_allclose(found, found.T, atol=1e-12)
    assert np.allclose(np.diag(found), 0) and found.max() <= 1


def test_groups_apart_share_no_neighbours():
    features = np.concatenate([np.eye(3)[[0] * 8], np.eye(3)[[1] * 8]]) + 0.01 * unit(16, 3)
    found = jaccard_distances(features / np.linalg.norm(features, axis=1, keepdims=True), 6)
    assert (found[:8, 8:] == 1).all() and found[:8, :8].mean() < 0.6
