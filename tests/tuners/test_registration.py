"""Importing hf_transfer is enough for PEFT to know the tuners; registering twice is nothing."""

from __future__ import annotations

import copy
import importlib
import pickle

import pytest
from peft import PeftType, get_peft_config
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING
from torch import nn

from hf_transfer.tuners import TUNERS, register_tuners
from hf_transfer.tuners.registration import CLASSES
from hf_transfer.tuners.target_layers import block_layers, layers_with_bias, output_layers, spatial_convolutions
from tests import tiny


@pytest.mark.parametrize("name", TUNERS)
def test_peft_knows_the_tuner(name):
    module, attribute = TUNERS[name].split(":")
    config_class = getattr(importlib.import_module(module), attribute)
    member = PeftType(name.upper())
    assert CLASSES[name] == (PEFT_TYPE_TO_CONFIG_MAPPING[member], PEFT_TYPE_TO_TUNER_MAPPING[member])
    assert PEFT_TYPE_TO_CONFIG_MAPPING[name.upper()] is config_class
    assert member is getattr(PeftType, name.upper()) and member in list(PeftType) and member == name.upper()
    assert copy.deepcopy(member) is member and pickle.loads(pickle.dumps(member)) is member
    assert type(get_peft_config({"peft_type": name.upper()})) is config_class
    assert config_class().peft_type is member and config_class.paper


def test_registering_again_changes_nothing():
    before = list(PeftType), dict(PEFT_TYPE_TO_PREFIX_MAPPING)
    register_tuners()
    assert (list(PeftType), dict(PEFT_TYPE_TO_PREFIX_MAPPING)) == before


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
