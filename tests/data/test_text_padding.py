import pytest
import torch
from datasets import Dataset
from transformers import (
    AutoModelForSequenceClassification,
    BertConfig,
    CTRLConfig,
    FNetConfig,
    FunnelConfig,
    GPT2Config,
    GPTNeoConfig,
    LlamaConfig,
    ModernBertConfig,
    XLNetConfig,
)

from hf_transfer.data.prepare import prepare
from hf_transfer.data.text_padding import settle_padding_side
from tests import tiny

LAYERS = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 64}
CONFIGS = {
    "bert": (BertConfig, LAYERS),
    "llama": (LlamaConfig, {**LAYERS, "num_key_value_heads": 2}),
    "modernbert": (ModernBertConfig, LAYERS),
    "gpt2": (GPT2Config, {"n_embd": 32, "n_layer": 2, "n_head": 2}),
    "ctrl": (CTRLConfig, {"n_embd": 32, "n_layer": 2, "n_head": 2, "dff": 64}),
    "gpt_neo": (
        GPTNeoConfig,
        {"hidden_size": 32, "num_layers": 2, "num_heads": 2, "attention_types": [[["global", "local"], 1]]},
    ),
    "funnel": (FunnelConfig, {"d_model": 32, "block_sizes": [1, 1], "n_head": 2, "d_head": 16, "d_inner": 64}),
    "xlnet": (XLNetConfig, {"d_model": 32, "n_layer": 2, "n_head": 2, "d_inner": 64}),
}


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("kind", CONFIGS)
def test_what_a_model_says_of_a_text_depends_on_no_other(kind, side):
    made, settings = CONFIGS[kind]
    torch.manual_seed(0)
    tokenizer = tiny.tokenizer()
    tokenizer.padding_side = side
    config = made(vocab_size=len(tokenizer), pad_token_id=tokenizer.pad_token_id, **settings)
    model = AutoModelForSequenceClassification.from_config(config).eval()
    texts = ["in the beginning", "the earth was without form and void", "and there was light in the heaven"]
    ready = prepare(Dataset.from_dict({"text": texts}), config, tokenizer)
    assert len({len(ids) for ids in ready["input_ids"]}) > 1
    with torch.no_grad():
        together = model(**tokenizer.pad(ready[:], return_tensors="pt")).logits
        alone = [model(**tokenizer.pad(ready[[row]], return_tensors="pt")).logits for row in range(len(ready))]
    torch.testing.assert_close(together, torch.cat(alone), atol=2e-6, rtol=1e-5)


def test_a_side_that_is_changed_and_a_model_that_reads_padding_are_told(caplog):
    tokenizer = tiny.tokenizer()
    settle_padding_side(tokenizer, XLNetConfig())
    assert tokenizer.padding_side == "left"
    assert "the tokenizer pads on the right; xlnet is right with padding on the left" in caplog.text
    settle_padding_side(tokenizer, XLNetConfig(), reads_every_token=True)
    assert tokenizer.padding_side == "right"
    settle_padding_side(tokenizer, FNetConfig())
    assert "fnet reads padding like any token" in caplog.text
