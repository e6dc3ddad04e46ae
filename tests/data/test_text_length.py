import inspect
import re
from pathlib import Path

import pytest
import torch
import transformers
from transformers import CONFIG_MAPPING, AutoModel
from transformers.tokenization_utils_base import LARGE_INTEGER

from hf_transfer.data.text_length import (
    OFFSET_KINDS,
    check_vocabulary,
    longest_text,
    text_positions,
    with_limit,
)
from tests import tiny

ROWS = 20
SIZES = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
SIZES |= {"vocab_size": 40, "max_position_embeddings": ROWS}
GPT2 = {"vocab_size": 40, "n_embd": 16, "n_layer": 1, "n_head": 2, "n_positions": ROWS}
DISTILBERT = {"vocab_size": 40, "dim": 16, "n_layers": 1, "n_heads": 2, "hidden_dim": 16}
DISTILBERT |= {"max_position_embeddings": ROWS}
XLNET = {"vocab_size": 40, "d_model": 16, "n_layer": 1, "n_head": 2, "d_inner": 16}
T5 = {"vocab_size": 40, "d_model": 16, "d_ff": 16, "num_layers": 1, "num_heads": 2, "d_kv": 8}
TOKENS = {"pad_token_id": 0, "bos_token_id": 1, "eos_token_id": 2}
KINDS = {
    "bert": (SIZES, 20),
    "electra": (SIZES, 20),
    "albert": ({**SIZES, "embedding_size": 8}, 20),
    "distilbert": (DISTILBERT, 20),
    "gpt2": ({**GPT2, **TOKENS}, 20),
    "roberta": (SIZES, 18),
    "xlm-roberta": (SIZES, 18),
    "mpnet": ({**SIZES, "pad_token_id": 0}, 18),
    "longformer": ({**SIZES, "attention_window": 4}, 18),
    "modernbert": ({**SIZES, **TOKENS, "cls_token_id": 1, "sep_token_id": 2}, 20),
    "deberta-v2": ({**SIZES, "position_biased_input": False, "relative_attention": True}, None),
    "xlnet": (XLNET, None),
    "t5": (T5, None),
}
ROTARY = ("modernbert",)
"""Models that read on behind the longest text that they were trained on."""


@pytest.mark.parametrize("kind", KINDS)
def test_positions_are_as_many_as_the_model_reads(kind):
    fields, expected = KINDS[kind]
    config = CONFIG_MAPPING[kind](**fields)
    assert text_positions(config) == expected
    model = AutoModel.from_config(config).eval()
    model = model.get_encoder() if config.is_encoder_decoder else model
    ids = torch.full((1, expected or 3 * ROWS), 5)
    model(input_ids=ids)
    if expected is not None and kind not in ROTARY:
        with pytest.raises((IndexError, RuntimeError)):
            model(input_ids=torch.full((1, expected + 1), 5))


def test_every_kind_that_numbers_positions_behind_the_padding_is_known():
    folder = Path(inspect.getfile(transformers)).parent / "models"
    known = set()
    for kind in OFFSET_KINDS:
        known.add(re.search(r"models\.(\w+)\.", CONFIG_MAPPING[kind].__module__)[1])
    tables = r"def create_position_ids_from_input_ids|create_position_ids_from_input_ids\(\s*input_ids"
    found = {path.parent.name for path in folder.glob("*/modeling_*.py") if re.search(tables, path.read_text())}
    # translators and speech, whose positions are sinusoids or whose tables have two rows more, and parts of others
    others = {"fsmt", "m2m_100", "nllb_moe", "seamless_m4t", "seamless_m4t_v2", "speech_to_text", "speecht5", "trocr"}
    others |= {"evolla", "kosmos2", "kosmos2_5", "pp_doclayout_v2"}
    assert found - others == known


@pytest.mark.parametrize(
    ("tokenizers", "asked", "expected"),
    [(LARGE_INTEGER, None, 18), (512, None, 18), (10, None, 10), (512, 12, 12), (-1, 40, 18), (None, None, 18)],
)
def test_the_least_limit_counts(tokenizers, asked, expected):
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = tokenizers
    assert longest_text(CONFIG_MAPPING["roberta"](**SIZES), tokenizer, asked) == expected


def test_no_limit_anywhere():
    assert longest_text(CONFIG_MAPPING["xlnet"](**XLNET), tiny.tokenizer(), None) is None


def test_a_token_without_an_embedding_is_named():
    tokenizer = tiny.tokenizer()
    config = CONFIG_MAPPING["bert"](**{**SIZES, "vocab_size": 10})
    check_vocabulary([9], tokenizer, config)
    word = tokenizer.convert_ids_to_tokens(10)
    with pytest.raises(ValueError, match=f"the token '{word}' the number 10, and the model has embeddings for 0 to 9"):
        check_vocabulary([3, 10], tokenizer, config)


@pytest.mark.parametrize(("own", "expected"), [(LARGE_INTEGER, 18), (512, 512), (10, 10)])
def test_a_tokenizer_without_a_limit_gets_that_of_the_model(own, expected):
    tokenizer = tiny.tokenizer()
    tokenizer.model_max_length = own
    assert with_limit(tokenizer, CONFIG_MAPPING["roberta"](**SIZES)).model_max_length == expected
