import copy

import torch
from peft import LoraConfig, get_peft_model

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


def test_batch_norms_take_the_statistics_of_the_batch_and_dropout_rests(pictures):
    model = tiny.resnet().resnet
    model.pooler = torch.nn.Sequential(model.pooler, torch.nn.Dropout(0.5))
    encoder = MomentumEncoder(BuildContext(model, 16, None), 0.5).train()
    reference = copy.deepcopy(model).train()
    reference.pooler.eval()
    for _ in range(2):
        got = encoder({"pixel_values": pictures[0]})
        torch.testing.assert_close(got, reference(pixel_values=pictures[0]).pooler_output.flatten(1))
        encoder.eval().train()
    assert not torch.equal(got, model.eval()(pixel_values=pictures[0]).pooler_output.flatten(1))


def test_batch_norms_that_an_adapter_leaves_frozen_rest(pictures):
    model = get_peft_model(
        tiny.resnet(), LoraConfig(target_modules=["convolution"], r=2, modules_to_save=["classifier"])
    )
    encoder = MomentumEncoder(BuildContext(model, 16, 10), 0.5)
    assert encoder._batch_norms == []
    expected = model.eval()(pixel_values=pictures[0], output_hidden_states=True).hidden_states[-1].mean(dim=(2, 3))
    torch.testing.assert_close(encoder({"pixel_values": pictures[0]}), expected)
