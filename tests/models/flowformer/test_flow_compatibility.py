"""attn_implementation="flow" is refused where the model computes attention itself, and taken where it does not."""

from types import SimpleNamespace

import pytest
import torch
from transformers import (
    AutoConfig,
    AutoModel,
    BertConfig,
    BertModel,
    BloomConfig,
    BloomModel,
    DataCollatorWithFlattening,
    GitConfig,
    GitModel,
    GPT2Config,
    ModernBertConfig,
    PreTrainedModel,
)

import hf_transfer  # noqa: F401
from hf_transfer.models.flowformer import flow_compatibility

SIZES = {
    **dict.fromkeys(("hidden_size", "n_embd", "d_model", "dim", "intermediate_size", "ffn_dim", "hidden_dim"), 16),
    **dict.fromkeys(("encoder_ffn_dim", "decoder_ffn_dim", "d_ff", "d_inner"), 16),
    **dict.fromkeys(("num_hidden_layers", "n_layer", "n_layers", "num_layers", "encoder_layers", "decoder_layers"), 1),
    **dict.fromkeys(("num_attention_heads", "n_head", "n_heads", "num_heads"), 2),
    **dict.fromkeys(("encoder_attention_heads", "decoder_attention_heads"), 2),
    "attention_window": 4,
}
REFUSED = [
    *("bloom", "codegen", "xglm", "deberta-v2", "deberta", "xlnet", "mpnet", "big_bird", "openai-gpt", "longformer"),
    *("mpt", "falcon", "gptj", "gpt_neo", "wavlm", "bigbird_pegasus", "roformer", "rembert", "fnet", "resnet"),
]
TAKEN = [
    "bert",
    "roberta",
    "distilbert",
    "electra",
    "albert",
    "gpt2",
    "llama",
    "qwen2",
    "vit",
    "t5",
    "whisper",
    "clip",
]
BERT = BertConfig(hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, vocab_size=31)
IDS = torch.randint(1, 31, (1, 6), generator=torch.Generator().manual_seed(0))


def build(name: str, attention: str = "flow") -> PreTrainedModel:
    """On the meta device: no weights are made."""
    config = AutoConfig.for_model(name)
    for field, value in SIZES.items():
        if hasattr(config, field):
            setattr(config, field, value)
    with torch.device("meta"):
        return AutoModel.from_config(config, attn_implementation=attention)


@pytest.mark.parametrize("name", REFUSED)
def test_a_model_that_computes_attention_itself_is_refused_when_built(name):
    with pytest.raises(ValueError, match="attn_implementation='flow'` has no effect"):
        build(name)


@pytest.mark.parametrize("name", TAKEN)
def test_a_model_that_calls_the_interface_is_taken(name):
    assert build(name).config._attn_implementation == "flow"


def test_other_attention_is_not_asked_about():
    assert build("bloom", "eager").config._attn_implementation == "eager"


def test_a_saved_model_is_refused_at_load(tmp_path):
    BloomModel(BloomConfig(vocab_size=31, hidden_size=16, n_layer=1, n_head=2)).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="BloomAttention"):
        AutoModel.from_pretrained(tmp_path, attn_implementation="flow")


def test_classes_chosen_by_the_name_of_the_attention_are_refused():
    with pytest.raises(ValueError, match="has no effect"):
        GitModel._from_config(GitConfig(hidden_size=16), attn_implementation="flow")


class Wrapper(PreTrainedModel):
    """A user's model around one of transformers'."""

    config_class = BertConfig

    def __init__(self, config):
        super().__init__(config)
        self.bert = BertModel(config)
        self.post_init()


class OwnAttention(torch.nn.Module):
    def forward(self, states):
        return torch.softmax(states @ states.mT, -1) @ states


class WithOwnAttention(Wrapper):
    def __init__(self, config):
        super().__init__(config)
        self.pooler = OwnAttention()
        self.post_init()


def test_a_users_model_around_others_is_asked_for_its_parts():
    assert Wrapper._from_config(BERT, attn_implementation="flow").bert.config._attn_implementation == "flow"
    with pytest.raises(ValueError, match="OwnAttention"):
        WithOwnAttention._from_config(BERT, attn_implementation="flow")
    model = Wrapper._from_config(BERT, attn_implementation="eager")
    model.pooler = OwnAttention()
    with pytest.raises(ValueError, match="OwnAttention"):
        model.set_attn_implementation("flow")


MODERN = ModernBertConfig(
    hidden_size=16,
    num_hidden_layers=1,
    num_attention_heads=2,
    intermediate_size=16,
    vocab_size=31,
    pad_token_id=0,
    layer_types=["full_attention"],
)


@pytest.mark.parametrize("config", [BERT, MODERN], ids=["bert", "modernbert"])
@pytest.mark.parametrize("marks", [{}, {"return_flash_attn_kwargs": True}, {"return_seq_idx": True}], ids=str)
def test_packed_documents_are_refused(config, marks):
    model = AutoModel.from_config(config, attn_implementation="flow").eval()
    documents = [{"input_ids": [1, 2, 3]}, {"input_ids": [4, 5, 6]}]
    batch = DataCollatorWithFlattening(**marks, return_position_ids=not marks)(documents)
    batch.pop("labels")
    with pytest.raises(ValueError, match="cannot keep packed documents apart"):
        model(**batch)
    # one document alone is not packed
    alone = DataCollatorWithFlattening(return_flash_attn_kwargs=True)(documents[:1])
    alone.pop("labels")
    assert model(**alone).last_hidden_state.isfinite().all()


@pytest.mark.parametrize("switched", [False, True])
def test_attention_weights_are_told_to_be_missing(switched, monkeypatch):
    told = []
    monkeypatch.setattr(flow_compatibility, "logger", SimpleNamespace(warning_once=told.append))
    config = GPT2Config(n_embd=16, n_layer=1, n_head=2, vocab_size=31)
    model = AutoModel.from_config(config, attn_implementation="eager" if switched else "flow")
    if switched:
        assert len(model(IDS, output_attentions=True).attentions) == 1
        model.set_attn_implementation("flow")
    model(IDS, output_attentions=True, use_cache=False)
    assert "GPT2Model has no attention weights" in told[0]


def other_choice(self, requested_attention, extra, is_init_check=False):
    return "sdpa"


@pytest.mark.parametrize("change", [{"get_correct_attn_implementation": other_choice}, {"post_init": None}])
def test_another_form_of_transformers_private_methods_is_left_alone(change, monkeypatch, caplog):
    (name, method), *_ = change.items()
    if method is None:
        monkeypatch.delattr(PreTrainedModel, name)
    else:
        monkeypatch.setattr(PreTrainedModel, name, method)
    monkeypatch.setattr(PreTrainedModel, "_asks_before_flow_attention", False)
    flow_compatibility.logger.warning_once.cache_clear()
    flow_compatibility.guard_flow_attention()
    assert f"another {name}" in caplog.text
    assert PreTrainedModel._asks_before_flow_attention is False
    assert getattr(PreTrainedModel, name, None) is method


def test_the_private_methods_have_the_form_that_is_wrapped():
    assert {name: flow_compatibility._arguments_of(name) for name in flow_compatibility.WRAPPED} == (
        flow_compatibility.WRAPPED
    )
