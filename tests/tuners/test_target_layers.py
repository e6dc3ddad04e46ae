"""The layers that tuners adapt when nobody names any."""

from __future__ import annotations

from torch import nn

from hf_transfer.tuners.target_layers import block_layers, layers_with_bias, output_layers, spatial_convolutions
from tests import tiny


def test_layers_of_the_blocks():
    model = tiny.bert()
    linear = set(block_layers(model, (nn.Linear,)))
    assert len(linear) == 12 and all(".layer." in name for name in linear)
    assert output_layers(model) < linear
    assert {"bert.embeddings.LayerNorm", "bert.pooler.dense"} < layers_with_bias(model) and "classifier" not in linear
    assert spatial_convolutions(model) == set()
    assert output_layers(model.bert) == {name.removeprefix("bert.") for name in output_layers(model)}


def test_a_network_of_ones_own():
    network = nn.Sequential(nn.Linear(2, 3), nn.ReLU(), nn.Linear(3, 2))
    assert output_layers(network) == {"0", "2"}
