"""Importing hf_transfer is enough for PEFT to know the tuners; registering twice is nothing."""

from __future__ import annotations

import copy
import importlib
import pickle

import pytest
from peft import PeftType, get_peft_config
from peft.mapping import PEFT_TYPE_TO_CONFIG_MAPPING, PEFT_TYPE_TO_PREFIX_MAPPING, PEFT_TYPE_TO_TUNER_MAPPING

from hf_transfer.tuners import TUNERS, register_tuners
from hf_transfer.tuners.registration import CLASSES


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
