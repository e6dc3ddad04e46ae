"""Every collator of text pre-training trains a tiny model of its kind; a resumed run equals a straight one."""

import pytest
import torch
from datasets import Dataset
from transformers import (
    BartConfig,
    BartForConditionalGeneration,
    BertConfig,
    BertForMaskedLM,
    LlamaForCausalLM,
    T5Config,
    T5ForConditionalGeneration,
    XLNetConfig,
    XLNetLMHeadModel,
)

from hf_transfer import PretrainingTrainer, TransferConfig
from hf_transfer.data import (
    DenoisingCollator,
    MaskedLanguageCollator,
    PackingCollator,
    PermutationCollator,
    SpanCorruptionCollator,
)
from tests import tiny
from tests.data.text_tokenizers import TEXTS, byte_level
from tests.marks import slow

VOCABULARY = 400
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
TOKENS = {"vocab_size": VOCABULARY, "pad_token_id": 0, "eos_token_id": 1}


def bert(dropout):
    rates = {"hidden_dropout_prob": dropout, "attention_probs_dropout_prob": dropout}
    return BertForMaskedLM(BertConfig(**SMALL, **rates, vocab_size=VOCABULARY))


def xlnet(dropout):
    sizes = {"d_model": 16, "n_layer": 2, "n_head": 2, "d_inner": 16}
    return XLNetLMHeadModel(XLNetConfig(**TOKENS, **sizes, bos_token_id=1, dropout=dropout))


def t5(dropout):
    sizes = {"d_model": 16, "d_ff": 16, "d_kv": 8, "num_layers": 2, "num_heads": 2}
    return T5ForConditionalGeneration(T5Config(**TOKENS, **sizes, dropout_rate=dropout, decoder_start_token_id=0))


def bart(dropout):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 16, "decoder_ffn_dim": 16}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    ends = {"bos_token_id": 1, "decoder_start_token_id": 1, "forced_eos_token_id": 1}
    return BartForConditionalGeneration(BartConfig(**TOKENS, **sizes, **heads, **ends, dropout=dropout))


def llama(dropout):
    config = tiny.llama(attention_dropout=dropout).config
    config.vocab_size = VOCABULARY
    return LlamaForCausalLM(config)


CASES = {
    "masked": (bert, lambda: MaskedLanguageCollator(byte_level())),
    "whole words": (bert, lambda: MaskedLanguageCollator(byte_level(), probability=0.3, whole_words=True)),
    "permuted": (xlnet, lambda: PermutationCollator(byte_level())),
    "spans": (t5, lambda: SpanCorruptionCollator(byte_level())),
    "spans of a decoder": (llama, lambda: SpanCorruptionCollator(byte_level(), decoder_only=True)),
    "denoising": (bart, lambda: DenoisingCollator(byte_level(), random_share=0.1)),
    "packed": (llama, lambda: PackingCollator(byte_level())),
}

FEW = ("masked", "spans")
"""Cases that are not left to the slow tests of a kind that every case passes."""


def rows() -> Dataset:
    return Dataset.from_dict({"input_ids": byte_level()(TEXTS)["input_ids"]})


def trainer(folder, name: str, dataset: Dataset | None = None, dropout: float = 0.1, **settings) -> PretrainingTrainer:
    model, collator = CASES[name]
    torch.manual_seed(0)
    settings = {"max_steps": 8, "learning_rate": 0.01, "per_device_train_batch_size": 8, "save_steps": 4, **settings}
    config = TransferConfig(str(folder), logging_steps=1, report_to=[], use_cpu=True, seed=3, **settings)
    dataset = rows() if dataset is None else dataset
    return PretrainingTrainer(
        model(dropout),
        config,
        train_dataset=dataset,
        eval_dataset=rows(),
        data_collator=collator(),
        processing_class=byte_level(),
    )


@pytest.mark.parametrize("name", [name if name in FEW else slow(name) for name in CASES])
def test_it_learns_and_a_resumed_run_equals_a_straight_one(tmp_path, name):
    straight = trainer(tmp_path / "straight", name)
    before = straight.evaluate()["eval_loss"]
    assert straight.evaluate()["eval_loss"] == before
    straight.train()
    assert straight.evaluate()["eval_loss"] < before - 0.1
    again = trainer(tmp_path / "straight", name)
    again.train(resume_from_checkpoint=str(tmp_path / "straight" / "checkpoint-4"))
    losses = [[entry["loss"] for entry in one.state.log_history if "loss" in entry] for one in (straight, again)]
    assert len(losses[0]) == 8 and losses[0] == losses[1]
    first, second = (one.adapted_model.state_dict() for one in (straight, again))
    assert all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", [name if name in FEW else slow(name) for name in CASES])
def test_accumulated_steps_equal_one_step_of_the_joined_batch(tmp_path, name):
    """Every label counts the same, in whichever part of the batch it is; packed parts are no padded rows."""
    ends = []
    for size, parts in ((8, 1), (4, 2)):
        split = {"per_device_train_batch_size": size, "gradient_accumulation_steps": parts}
        descent = {"max_steps": 2, "save_strategy": "no", "optim": "sgd", "learning_rate": 0.1}
        one = trainer(tmp_path / str(size), name, dropout=0.0, **split, **descent)
        one.train()
        ends.append(one.adapted_model.state_dict())
    for key, value in ends[0].items():
        torch.testing.assert_close(ends[1][key], value, atol=1e-5, rtol=1e-3, msg=key)


def test_xlnet_predicts_every_label_that_it_is_given(tmp_path):
    """Its loss shifts nothing, so that the first label of a row counts too."""
    assert not trainer(tmp_path, "permuted").transfer_model.loss_items.shifts_labels
    assert trainer(tmp_path, "packed").transfer_model.loss_items.shifts_labels


@pytest.mark.parametrize("name", CASES)
def test_texts_without_tokens_are_refused_before_training(tmp_path, name):
    empty = Dataset.from_dict({"input_ids": [[5, 6, 7, 8], [1], [5, 6, 7]]})
    with pytest.raises(ValueError, match="of the training dataset has fewer than . tokens of text in row 1 "):
        trainer(tmp_path, name, empty)


@pytest.mark.parametrize(
    ("name", "model", "message"),
    [
        ("permuted", bert, r"gives \['perm_mask', 'target_mapping'\], which a BertForMaskedLM does not take"),
        (
            "spans",
            llama,
            "for encoder-decoder models, and a LlamaForCausalLM is one of the models of one stack",
        ),
        ("spans of a decoder", t5, "makes batches for models of one stack, and a T5ForConditionalGeneration is one"),
        ("denoising", llama, "DenoisingCollator makes batches for encoder-decoder models"),
        ("packed", t5, r"gives \['position_ids'\], which a T5ForConditionalGeneration does not take"),
    ],
)
def test_a_model_of_another_kind_is_refused_before_training(tmp_path, monkeypatch, name, model, message):
    monkeypatch.setitem(CASES, name, (model, CASES[name][1]))
    with pytest.raises(ValueError, match=message):
        trainer(tmp_path, name)


def test_a_model_that_mixes_packed_documents_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(CASES, "packed", (bert, CASES["packed"][1]))
    with pytest.raises(ValueError, match="BertForMaskedLM with `attn_implementation=sdpa` does not keep"):
        trainer(tmp_path, "packed")


def test_a_mask_token_without_an_embedding_is_refused_before_training(tmp_path, monkeypatch):
    monkeypatch.setitem(TOKENS, "vocab_size", 390)
    with pytest.raises(ValueError, match="sentinel <extra_id_0> has the number 399"):
        trainer(tmp_path, "spans")
