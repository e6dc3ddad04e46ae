"""Embeddings whose layers were quantised or adapted by PEFT."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn

from hf_transfer.models.flowformer import FlowformerModel
from hf_transfer.models.flowformer.embeddings_flowformer import computing_dtype
from tests.models.flowformer.tiny import tiny_config, tiny_inputs


def model_of(modality, **fields) -> FlowformerModel:
    torch.manual_seed(0)
    return FlowformerModel(tiny_config(modality, **fields)).eval()


@pytest.mark.filterwarnings("ignore:torch.ao.quantization:DeprecationWarning")
@pytest.mark.parametrize("modality", ["text", "image", "time_series", "trajectory"])
def test_dynamic_quantisation_keeps_the_inputs(modality):
    model = model_of(modality)
    small = torch.ao.quantization.quantize_dynamic(copy.deepcopy(model), {nn.Linear}, dtype=torch.qint8)
    inputs = tiny_inputs(model.config)
    expected = model(**inputs).last_hidden_state
    assert (small(**inputs).last_hidden_state - expected).abs().mean() < 0.05 < expected.abs().mean()


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int8, torch.float8_e4m3fn])
def test_inputs_are_never_rounded_to_eight_bits(dtype):
    layer = nn.Linear(3, 4, bias=False)
    layer.weight = nn.Parameter(torch.zeros(4, 3).to(dtype), requires_grad=False)
    assert computing_dtype(layer) == torch.float32
    layer.bias = nn.Parameter(torch.zeros(4, dtype=torch.bfloat16))
    assert computing_dtype(layer) == torch.bfloat16


@pytest.mark.parametrize(
    ("modality", "tables"), [("text", ["word_embeddings", "table", "token_types"]), ("trajectory", ["embed_timestep"])]
)
def test_lora_adapts_tables(modality, tables):
    model = model_of(modality, type_vocab_size=2)
    inputs = tiny_inputs(model.config)
    expected = model(**inputs).last_hidden_state
    adapted = get_peft_model(model, LoraConfig(target_modules=tables, init_lora_weights=False)).eval()
    output = adapted(**inputs).last_hidden_state
    assert not torch.allclose(output, expected, atol=1e-3)
    torch.testing.assert_close(adapted.merge_and_unload()(**inputs).last_hidden_state, output, atol=1e-5, rtol=1e-4)


def test_an_adapted_table_still_names_a_foreign_id():
    adapted = get_peft_model(model_of("text"), LoraConfig(target_modules=["word_embeddings"]))
    with pytest.raises(ValueError, match=r"`input_ids` should be in \[0, 30\]"):
        adapted(input_ids=torch.tensor([[31]]))
