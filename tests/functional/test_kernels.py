import math

import pytest
import torch

from hf_transfer.functional.kernels import (
    gaussian_mixture,
    mean_squared_distance,
    pairwise_squared_distances,
    quadratic_mmd,
)


def rows(count, shift=0.0, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 3, generator=generator, dtype=torch.float64) + shift


def test_distances_and_their_mean():
    z = rows(5)
    naive = torch.tensor([[sum((a - b) ** 2 for a, b in zip(x, y)).item() for y in z] for x in z], dtype=torch.float64)
    torch.testing.assert_close(pairwise_squared_distances(z), naive)
    torch.testing.assert_close(mean_squared_distance(z), naive.mean())


def test_the_mixture_is_a_sum_of_gaussians():
    value = gaussian_mixture(torch.tensor([0.0, 3.0]), [0.5, 2.0])
    assert value.tolist() == pytest.approx([2.0, math.exp(-3.0) + math.exp(-0.75)])
    assert gaussian_mixture(torch.zeros(2), [0.0]).tolist() == [1.0, 1.0]


def test_mmd_leaves_out_self_comparisons():
    kernel = gaussian_mixture(pairwise_squared_distances(rows(7)), [1.0, 3.0])
    n, m = 4, 3
    source = sum(kernel[i, j] for i in range(n) for j in range(n) if i != j) / (n * (n - 1))
    target = sum(kernel[n + i, n + j] for i in range(m) for j in range(m) if i != j) / (m * (m - 1))
    between = sum(kernel[i, n + j] for i in range(n) for j in range(m)) / (n * m)
    torch.testing.assert_close(quadratic_mmd(kernel, n), source + target - 2 * between)


def test_mmd_is_unbiased():
    """Over many draws its mean is 0 where the domains are alike and clearly positive where they are not."""

    def estimates(shift):
        values = []
        for seed in range(100):
            z = torch.cat([rows(6, seed=2 * seed), rows(6, shift, seed=2 * seed + 1)])
            values.append(quadratic_mmd(gaussian_mixture(pairwise_squared_distances(z), [1.0, 4.0]), 6))
        values = torch.stack(values)
        return values.mean().item(), (values.std() / math.sqrt(len(values))).item()

    mean, error = estimates(0.0)
    assert abs(mean) < 3 * error
    mean, error = estimates(1.0)
    assert mean > 4 * error
