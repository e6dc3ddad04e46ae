"""Packed documents have the losses of each alone, in models that are let through; the others are refused."""

import pytest
import torch
from transformers import (
    BertConfig,
    BertLMHeadModel,
    BloomConfig,
    BloomForCausalLM,
    GPT2LMHeadModel,
    LlamaForCausalLM,
    OPTConfig,
    OPTForCausalLM,
)

from hf_transfer.data import PackingCollator
from hf_transfer.modeling.packing import check_packing
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForCausalLM
from tests import tiny
from tests.data.text_tokenizers import TEXTS, byte_level

VOCABULARY = 400
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2}


def gpt2(**fields):
    config = tiny.gpt2(**fields).config
    config.vocab_size, config.n_positions, config.use_cache = VOCABULARY, 64, False
    return GPT2LMHeadModel(config)


def llama(use_cache: bool = False, attention: str = "sdpa"):
    config = tiny.llama().config
    config.vocab_size, config.use_cache, config._attn_implementation = VOCABULARY, use_cache, attention
    return LlamaForCausalLM(config)


def flowformer(attention: str):
    config = FlowformerConfig(**SMALL, intermediate_size=16, modality="text", is_causal=True, vocab_size=VOCABULARY)
    config._attn_implementation = attention
    return FlowformerForCausalLM(config)


KEEPING = {
    "flow": lambda: flowformer("flow"),
    "flowformer sdpa": lambda: flowformer("sdpa"),
    "llama": llama,
    "llama eager": lambda: llama(attention="eager"),
    "gpt2": gpt2,
    "lora": lambda: tiny.with_lora(llama(), head="lm_head"),
}
MIXING = {
    "bloom": lambda: BloomForCausalLM(BloomConfig(vocab_size=VOCABULARY, hidden_size=16, n_layer=2, n_head=2)),
    "opt": lambda: OPTForCausalLM(OPTConfig(vocab_size=VOCABULARY, **SMALL, ffn_dim=16, word_embed_proj_dim=16)),
    "bert": lambda: BertLMHeadModel(BertConfig(vocab_size=VOCABULARY, **SMALL, is_decoder=True)),
    "llama that caches": lambda: llama(use_cache=True),
}


@pytest.mark.parametrize("name", KEEPING)
def test_the_loss_and_gradient_of_a_packed_row_are_those_of_its_documents(name):
    torch.manual_seed(0)
    model = KEEPING[name]().train()
    check_packing(model)
    assert model.training  # as it was
    collator = PackingCollator(byte_level())
    rows = [{"input_ids": tokens} for tokens in byte_level()(TEXTS[:5])["input_ids"]]
    model.eval()
    packed = model(**collator(rows)).loss
    total, count = 0.0, 0
    for row in rows:
        ids = torch.tensor([[*row["input_ids"], 1]])
        logits = model(input_ids=ids).logits[0, :-1].log_softmax(-1)
        total = total - logits[range(len(ids[0]) - 1), ids[0, 1:]].sum()
        count += len(ids[0]) - 1
    torch.testing.assert_close(packed, total / count, atol=1e-5, rtol=1e-5)
    weights = [weight for weight in model.parameters() if weight.requires_grad]
    for one, other in zip(*(torch.autograd.grad(loss, weights) for loss in (packed, total / count)), strict=True):
        torch.testing.assert_close(one, other, atol=1e-5, rtol=1e-3)


@pytest.mark.parametrize("name", MIXING)
def test_models_that_mix_documents_are_refused(name):
    torch.manual_seed(0)
    with pytest.raises(ValueError, match="does not keep packed documents apart|cannot read packed documents"):
        check_packing(MIXING[name]())


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_precision_is_no_leak_and_a_leak_is_seen_in_any(dtype):
    torch.manual_seed(0)
    for make in (llama, lambda: flowformer("flow"), gpt2):
        check_packing(make().to(dtype))
    with pytest.raises(ValueError, match="does not keep packed documents apart"):
        check_packing(MIXING["opt"]().to(dtype))


def test_a_small_leak_is_seen():
    """Of one that starts with small weights, such as a new model."""
    torch.manual_seed(0)
    model = MIXING["bert"]()
    model.config.use_cache = False
    model.bert.embeddings.position_embeddings.weight.data.zero_()
    for layer in model.bert.encoder.layer:
        layer.attention.self.value.weight.data *= 0.005
    with pytest.raises(ValueError, match="does not keep packed documents apart"):
        check_packing(model)
