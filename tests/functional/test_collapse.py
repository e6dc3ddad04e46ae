import math

import numpy as np
import pytest
import torch

from hf_transfer.functional.collapse import channel_spread, rank_me


def features(count=40, width=6, seed=0):
    return torch.randn(count, width, generator=torch.Generator().manual_seed(seed))


def test_rank_me_against_the_formula():
    z = features() * torch.tensor([3.0, 2.0, 1.0, 0.5, 0.1, 0.0])
    values = np.linalg.svd(z.numpy(), compute_uv=False)
    shares = values / values.sum() + 1e-7
    assert rank_me(z).item() == pytest.approx(math.exp(-(shares * np.log(shares)).sum()), rel=1e-4)


@pytest.mark.parametrize("rank", [1, 3])
def test_rank_me_of_equal_singular_values_is_their_number(rank):
    basis, _ = torch.linalg.qr(features(40, rank))
    assert rank_me(5 * basis @ torch.eye(rank, 6)).item() == pytest.approx(rank, rel=1e-4)


def test_channel_spread_against_the_formula():
    z = features() + 1
    unit = [row / math.sqrt(sum(value**2 for value in row)) for row in z.numpy()]
    assert channel_spread(z).item() == pytest.approx(np.std(unit, axis=0).mean(), rel=1e-5)


def test_even_directions_spread_by_one_over_the_root_of_their_dimensions():
    assert channel_spread(features(20_000, 16)).item() * 4 == pytest.approx(1, abs=0.02)


def test_rows_all_alike_have_collapsed():
    same = torch.ones(10, 6)
    assert channel_spread(same).item() == pytest.approx(0, abs=1e-6)
    assert rank_me(same).item() == pytest.approx(1, abs=1e-3)
    assert torch.isfinite(rank_me(torch.zeros(10, 6))) and channel_spread(torch.zeros(10, 6)) == 0


@pytest.mark.parametrize("gauge", [rank_me, channel_spread])
@pytest.mark.parametrize("shape", [(3, 4, 5), (0, 4)])
def test_what_is_no_table_of_features_is_refused(gauge, shape):
    with pytest.raises(ValueError, match=r"`features` should be \[N, D\] with at least one row, got"):
        gauge(torch.zeros(shape))
