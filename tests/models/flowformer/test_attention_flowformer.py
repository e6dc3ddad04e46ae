"""attn_implementation="flow" on models that are not ours: masks honoured, causal and not, no key-value cache."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoModel,
    AutoModelForCausalLM,
    BartConfig,
    BertConfig,
    Gemma2Config,
    GPT2Config,
    GptOssConfig,
    LlamaConfig,
    MistralConfig,
    Qwen2Config,
    RobertaConfig,
    T5Config,
    ViTConfig,
)

from hf_transfer.models.flowformer import attention_flowformer, flow_attention
from hf_transfer.models.flowformer.attention_flowformer import flow_attention_forward

LAYERS = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 24}
SIZES = {**LAYERS, "vocab_size": 31}
CONFIGS = {
    "bert": BertConfig(**SIZES),
    "bert-decoder": BertConfig(**SIZES, is_decoder=True, use_cache=False),
    "roberta": RobertaConfig(**SIZES, pad_token_id=0),
    "llama": LlamaConfig(**SIZES, num_key_value_heads=2),
    # its sliding window is longer than any sequence here
    "mistral": MistralConfig(**SIZES, num_key_value_heads=2),
    "qwen2": Qwen2Config(**SIZES, num_key_value_heads=2),
    "gpt2": GPT2Config(n_embd=16, n_layer=2, n_head=4, vocab_size=31),
}
CAUSAL = ["bert-decoder", "llama", "mistral", "qwen2", "gpt2"]


def saved(name, folder):
    torch.manual_seed(0)
    AutoModel.from_config(CONFIGS[name]).save_pretrained(folder)
    return AutoModel.from_pretrained(folder, attn_implementation="flow").eval()


@pytest.mark.parametrize("name", CONFIGS)
@pytest.mark.parametrize("side", ["left", "right"])
def test_padding_is_honoured(name, side, tmp_path):
    model = saved(name, tmp_path)
    ids = torch.randint(1, 31, (2, 6))
    padding, mask = torch.full((2, 3), 7), torch.ones(2, 9, dtype=torch.long)
    real = slice(3, None) if side == "left" else slice(0, 6)
    padded = torch.cat((padding, ids) if side == "left" else (ids, padding), dim=1)
    mask[:] = 0
    mask[:, real] = 1
    positions = (mask.cumsum(1) - 1).clamp(min=0)
    with torch.no_grad():
        alone = model(input_ids=ids, position_ids=torch.arange(6)[None], use_cache=False).last_hidden_state
        output = model(input_ids=padded, attention_mask=mask, position_ids=positions, use_cache=False)
        leaking = model(
            input_ids=padded, position_ids=positions, attention_mask=torch.ones_like(mask), use_cache=False
        )
    torch.testing.assert_close(output.last_hidden_state[:, real], alone, atol=1e-5, rtol=1e-4)
    if side == "left" or name not in CAUSAL:
        assert not torch.allclose(leaking.last_hidden_state[:, real], alone, atol=1e-3)


@pytest.mark.parametrize("name", CONFIGS)
def test_causal_where_the_model_is(name, tmp_path):
    model, ids = saved(name, tmp_path), torch.randint(1, 31, (1, 6))
    changed = ids.clone()
    changed[:, -1] = (ids[:, -1] + 1) % 31
    with torch.no_grad():
        first = model(input_ids=ids, use_cache=False).last_hidden_state
        second = model(input_ids=changed, use_cache=False).last_hidden_state
    assert torch.allclose(first[:, :-1], second[:, :-1], atol=1e-6) == (name in CAUSAL)


def test_a_vision_model_runs_and_trains(tmp_path):
    config = ViTConfig(**LAYERS, image_size=8, patch_size=2, num_channels=1)
    AutoModel.from_config(config).save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, attn_implementation="flow")
    images = torch.randn(2, 1, 8, 8)
    output = model(images).last_hidden_state
    softmax = AutoModel.from_pretrained(tmp_path, attn_implementation="sdpa")(images).last_hidden_state
    assert output.isfinite().all() and not torch.allclose(output, softmax, atol=1e-4)
    output.square().sum().backward()
    gradient = next(weight.grad for name, weight in model.named_parameters() if "q_proj" in name)
    assert gradient.abs().sum() > 0


@pytest.mark.parametrize("name", ["llama", "mistral", "qwen2", "gpt2"])
def test_a_key_value_cache_is_refused(name):
    model = AutoModelForCausalLM.from_config(CONFIGS[name], attn_implementation="flow").eval()
    ids = torch.randint(1, 31, (2, 5))
    with pytest.raises(ValueError, match="use_cache=False"):
        model.generate(ids, max_new_tokens=3, do_sample=False)
    assert model.generate(ids, max_new_tokens=3, min_new_tokens=3, do_sample=False, use_cache=False).shape == (2, 8)


def test_patterns_it_cannot_express_are_refused():
    sliding = MistralConfig(**SIZES, num_key_value_heads=2, sliding_window=3)
    model = AutoModel.from_config(sliding, attn_implementation="flow")
    with pytest.raises(ValueError, match="padding masks only"):
        model(input_ids=torch.ones(1, 6, dtype=torch.long))
    model(input_ids=torch.ones(1, 3, dtype=torch.long), use_cache=False)  # a window of three holds all of three
    packed = torch.tensor([[0, 1, 0]])
    with pytest.raises(ValueError, match="packed documents apart"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), position_ids=packed, use_cache=False)
    # positions that jump are packed sequences to transformers' masks
    jumps = torch.tensor([[0, 1, 5]])
    with pytest.raises(ValueError, match="padding masks only"):
        model(input_ids=torch.ones(1, 3, dtype=torch.long), position_ids=jumps, use_cache=False)
    llama = AutoModel.from_config(CONFIGS["llama"], attn_implementation="flow")
    with pytest.raises(ValueError, match="packed documents apart"):
        llama(input_ids=torch.ones(1, 4, dtype=int), position_ids=torch.tensor([[0, 1, 0, 1]]), use_cache=False)
    with pytest.raises(ValueError, match="mask per pair"):
        llama(input_ids=torch.ones(1, 4, dtype=int), attention_mask=torch.zeros(1, 1, 4, 4), use_cache=False)


def test_the_interface_is_the_operation():
    torch.manual_seed(0)
    module = torch.nn.Identity()
    query, key, value = torch.randn(2, 4, 6, 8), torch.randn(2, 2, 6, 8), torch.randn(2, 2, 6, 8)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0], [1, 1, 1, 1, 1, 1]], dtype=torch.bool)
    output, weights = flow_attention_forward(module, query, key, value, mask, is_causal=True)
    expected = flow_attention(
        query, key.repeat_interleave(2, 1), value.repeat_interleave(2, 1), causal=True, key_mask=mask, query_mask=mask
    )
    assert weights is None
    torch.testing.assert_close(output, expected.transpose(1, 2))
    # a module that says nothing is causal, as everywhere in transformers
    torch.testing.assert_close(flow_attention_forward(module, query, key, value, mask)[0], output)
    module.is_causal = False
    assert not torch.allclose(flow_attention_forward(module, query, key, value, mask)[0], output)


def test_cross_attention_reads_a_source_of_another_length():
    module = torch.nn.Identity()
    query, key, mask = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 7, 4), torch.ones(1, 7, dtype=torch.bool)
    with pytest.raises(ValueError, match="allows_flow_cross_attention"):
        flow_attention_forward(module, query, key, key, mask, is_causal=False)
    module.allows_flow_cross_attention = True
    output, _ = flow_attention_forward(module, query, key, key, mask, is_causal=False)
    torch.testing.assert_close(output, flow_attention(query, key, key).transpose(1, 2))
    with pytest.raises(ValueError, match="use_cache=False"):
        flow_attention_forward(module, query, key, key, mask, is_causal=True)


def test_cross_attention_of_equal_lengths_masks_the_source_alone():
    class CrossAttention(torch.nn.Identity):
        is_causal = False
        allows_flow_cross_attention = True

    query, key = torch.randn(2, 1, 2, 5, 4).unbind()
    mask = torch.tensor([[True, True, True, False, False]])
    output, _ = flow_attention_forward(CrossAttention(), query, key, key, mask)
    torch.testing.assert_close(output, flow_attention(query, key, key, key_mask=mask).transpose(1, 2))


def test_a_decoder_that_reads_an_encoder_is_refused():
    sizes = {f"{side}_{what}": 2 for side in ("encoder", "decoder") for what in ("layers", "attention_heads")}
    config = BartConfig(d_model=16, encoder_ffn_dim=24, decoder_ffn_dim=24, vocab_size=31, **sizes)
    model = AutoModel.from_config(config, attn_implementation="flow")
    ids = torch.ones(1, 6, dtype=torch.long)
    with pytest.raises(ValueError, match="no cross-attention for a decoder"):
        model(ids, decoder_input_ids=ids, use_cache=False)
    assert model.encoder(ids).last_hidden_state.isfinite().all()


def test_a_decoder_only_model_with_cross_attention_is_refused():
    """GPT-2 does not say that it is a decoder; its queries would see later ones through the encoder's flows."""
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=31, add_cross_attention=True)
    model = AutoModel.from_config(config, attn_implementation="flow").eval()
    ids, encoded = torch.ones(1, 4, dtype=torch.long), torch.randn(1, 4, 16)
    with pytest.raises(ValueError, match="no cross-attention for a decoder, got one in GPT2Attention"):
        model(ids, encoder_hidden_states=encoded, use_cache=False)
    assert model(ids, use_cache=False).last_hidden_state.isfinite().all()


def test_terms_per_pair_of_tokens_are_refused():
    sizes = {"d_model": 16, "d_kv": 4, "d_ff": 16, "num_layers": 1, "num_heads": 2, "vocab_size": 31}
    ids = torch.ones(1, 4, dtype=torch.long)
    encoder = AutoModel.from_config(T5Config(**sizes), attn_implementation="flow").encoder
    with pytest.raises(ValueError, match="position_bias"):
        encoder(ids)
    sinks = GptOssConfig(**SIZES, num_key_value_heads=2, head_dim=4, num_local_experts=2, num_experts_per_tok=1)
    sinks.layer_types = ["full_attention"] * 2
    with pytest.raises(ValueError, match="s_aux"):
        AutoModel.from_config(sinks, attn_implementation="flow")(ids, use_cache=False)


def test_a_cap_of_logits_is_told_to_have_no_effect(monkeypatch):
    told = []
    monkeypatch.setattr(attention_flowformer, "logger", SimpleNamespace(warning_once=told.append))
    config = Gemma2Config(**SIZES, num_key_value_heads=2, head_dim=4, pad_token_id=0)
    model = AutoModel.from_config(config, attn_implementation="flow")
    model(torch.ones(1, 4, dtype=torch.long), use_cache=False)
    assert "`softcap` changes nothing" in told[0]
