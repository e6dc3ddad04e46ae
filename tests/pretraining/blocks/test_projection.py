import pytest
import torch
from torch import nn

from hf_transfer.pretraining.blocks.projection import projection_head
from tests.pretraining.conftest import rows


def kinds(head):
    return [type(layer).__name__ for layer in head]


def test_the_layers():
    assert kinds(projection_head([4, 8, 3], hidden_norm=False)) == ["Linear", "ReLU", "Linear"]
    whole = projection_head([4, 8, 8, 3], last_norm="plain")
    assert kinds(whole) == ["Linear", "BatchNorm1d", "ReLU"] * 2 + ["Linear", "BatchNorm1d"]
    assert [layer.bias is None for layer in whole if isinstance(layer, nn.Linear)] == [True] * 3
    assert (whole[-1].weight is None, projection_head([4, 3], last_norm="affine")[-1].weight is None) == (True, False)
    assert projection_head([4, 8, 3])[-1].bias is not None


@pytest.mark.parametrize("training", [True, False])
def test_batch_norms_take_the_statistics_of_the_batch(training):
    """In evaluation mode too, which is that of a momentum encoder; and no state but parameters is kept."""
    head = projection_head([4, 8, 3], last_norm="plain").train(training)
    out = head(rows(16, 4, 0) + 5)
    torch.testing.assert_close(out.mean(dim=0), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(out.var(dim=0, correction=0), torch.ones(3), atol=1e-2, rtol=0)
    assert not list(head.buffers())
