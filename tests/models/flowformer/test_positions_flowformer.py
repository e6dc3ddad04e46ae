"""Rotary positions: every kind that transformers has turns queries and keys as Llama turns them."""

import pytest
import torch
from transformers import LlamaConfig
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding, apply_rotary_pos_emb

from hf_transfer.models.flowformer import FlowformerModel
from hf_transfer.models.flowformer.positions_flowformer import FlowformerRotaryEmbedding, apply_rotary
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

HEAD = 8
KINDS = {
    "default": {"rope_theta": 500.0},
    "linear": {"factor": 4.0},
    "dynamic": {"factor": 4.0},
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 8},
    "longrope": {
        "short_factor": [1.0, 1.1, 1.2, 1.3],
        "long_factor": [1.0, 2.0, 3.0, 4.0],
        "original_max_position_embeddings": 16,
    },
    "llama3": {
        "factor": 4.0,
        "low_freq_factor": 1.0,
        "high_freq_factor": 4.0,
        "original_max_position_embeddings": 8,
    },
}


def rotated(kind: str) -> dict:
    return {"position_embedding_type": "rotary", "rope_parameters": {"rope_type": kind, **KINDS[kind]}}


@pytest.mark.parametrize("length", [12, 40])
@pytest.mark.parametrize("kind", KINDS)
def test_queries_turn_as_in_llama(kind, length):
    """The table of positions is 32 long: 40 are beyond it, and beyond the original length."""
    config = tiny_config(max_position_embeddings=32, **rotated(kind))
    sizes = {"hidden_size": 2 * HEAD, "num_attention_heads": 2, "max_position_embeddings": 32}
    llama = LlamaRotaryEmbedding(LlamaConfig(**sizes, rope_parameters=dict(config.rope_parameters)))
    torch.manual_seed(0)
    query, key = torch.randn(2, 2, 2, length, HEAD)
    positions = torch.arange(length).expand(2, -1)
    expected = apply_rotary_pos_emb(query, key, *llama(query, positions))
    turns = FlowformerRotaryEmbedding(config)(positions[..., None])
    for found, wanted in zip((apply_rotary(states, *turns) for states in (query, key)), expected):
        torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)


def test_no_rotation_is_stored_or_rounded(tmp_path):
    torch.manual_seed(0)
    model = FlowformerModel(tiny_config(**rotated("yarn"))).eval()
    assert not [name for name in model.state_dict() if "rotary" in name]
    model.save_pretrained(tmp_path)
    loaded, inputs = FlowformerModel.from_pretrained(tmp_path).eval(), tiny_inputs(model.config)
    torch.testing.assert_close(loaded(**inputs).last_hidden_state, model(**inputs).last_hidden_state)
    far = torch.tensor([[[1e4]]])
    before = [turn.clone() for turn in loaded.rotary_emb(far)]
    torch.testing.assert_close(list(loaded.bfloat16().rotary_emb(far)), before, atol=0, rtol=0)
    other = FlowformerModel(tiny_config(position_embedding_type="rotary")).eval()
    other.load_state_dict(model.state_dict())
    assert not torch.allclose(other(**inputs).last_hidden_state, model(**inputs).last_hidden_state, atol=1e-3)


def test_a_linear_rotation_is_slower_positions():
    model = FlowformerModel(tiny_config(**rotated("linear"))).eval()
    plain = FlowformerModel(tiny_config(position_embedding_type="rotary")).eval()
    plain.load_state_dict(model.state_dict())
    inputs = tiny_inputs(model.config)
    slow = plain(**inputs, position_ids=torch.arange(7)[None] / 4).last_hidden_state
    torch.testing.assert_close(model(**inputs).last_hidden_state, slow)
