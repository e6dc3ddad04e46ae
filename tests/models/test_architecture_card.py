"""The page of flowformer-base is what the code writes, and every number on it holds."""

import json
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModel

from hf_transfer.models.architecture_card import write_architecture_card
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForCausalLM
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

RELEASED = Path(__file__).parents[2] / "model_cards" / "flowformer-base"


def test_the_released_page_is_what_the_code_writes(tmp_path):
    for file in write_architecture_card(tmp_path):
        assert (RELEASED / file.name).read_text() == file.read_text(), "run the command in the docstring of the module"


def test_its_configuration_loads_by_auto_class():
    config = AutoConfig.from_pretrained(RELEASED)
    assert config.to_diff_dict() == FlowformerConfig.from_size("base").to_diff_dict()
    with torch.device("meta"):
        parameters = AutoModel.from_config(config).num_parameters()
    assert f"{parameters / 1e6:.1f} M" in (RELEASED / "README.md").read_text()


@pytest.mark.parametrize("size", ["tiny", "large"])
def test_other_sizes_write_their_own_page(size, tmp_path):
    write_architecture_card(tmp_path, size)
    assert f"# flowformer-{size}" in (tmp_path / "README.md").read_text()
    fields = json.loads((tmp_path / "config.json").read_text())
    assert fields["hidden_size"] == FlowformerConfig.from_size(size).hidden_size


def test_the_size_of_the_state_is_that_formula():
    model = FlowformerForCausalLM(tiny_config())
    heads, width = 2, 8
    state = model(**tiny_inputs(model.config), use_cache=True).past_key_values.layers[0].state
    numbers = sum(tensor[0].numel() for tensor in state)
    assert numbers == heads * (4 * width + 1 + width**2) + 1
