import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.pretraining.blocks.momentum_encoder import MomentumEncoder
from tests import tiny
from tests.pretraining.conftest import features_of


def test_it_reads_the_features_of_a_moving_average(context, backbone, pictures):
    encoder = MomentumEncoder(context, 0.75)
    inputs = {"pixel_values": pictures[0]}
    torch.testing.assert_close(encoder(inputs), features_of(backbone, pictures[0]))
    start = {name: value.clone() for name, value in backbone.named_parameters()}
    with torch.no_grad():
        for value in backbone.parameters():
            value.add_(1.0)
    encoder.update(backbone)
    for name, value in encoder.average.module.named_parameters():
        torch.testing.assert_close(value, start[name] + 0.25)
    features = encoder(inputs)
    assert not features.requires_grad and not encoder.train().average.module.training


def test_a_head_has_its_readout(pictures):
    model = tiny.vit()
    encoder = MomentumEncoder(BuildContext(model, 16, 10), 0.5)
    assert encoder({"pixel_values": pictures[0]}).shape == (8, 16)
