"""The universal tasks of Flowformer, from arguments to the published folder."""

import json
import math
from pathlib import Path

import pytest
import torch
from datasets import Dataset, DatasetDict
from transformers import AutoModelForCausalLM, AutoTokenizer

from hf_transfer.models.flowformer import DecisionFlowformer, FlowformerForTimeSeriesClassification
from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.saving import read_results
from tests import tiny
from tests.runs.folders import QUICK

SMALL = {"model_type": "flowformer", "hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
SERIES = {**SMALL, "modality": "time_series", "pooling": "flatten", "norm_type": "batch_norm"}
TEXT = {**SMALL, "modality": "text", "is_causal": True, "max_position_embeddings": 32}


@pytest.fixture
def series(tmp_path, monkeypatch) -> str:
    """Rising and falling series of two channels; the test split has the longest."""
    monkeypatch.chdir(tmp_path)
    rows = {"past_values": [], "label": []}
    for place in range(24):
        sign = 1 if place % 2 else -1
        rows["past_values"].append([[sign * step / 9, 0.1 * place] for step in range(4 + place // 4)])
        rows["label"].append(place % 2)
    whole = Dataset.from_dict(rows)
    DatasetDict(train=whole.select(range(16)), test=whole.select(range(16, 24))).save_to_disk("series")
    return "series"


def pretrain(*argv, **architecture) -> dict[str, float]:
    return run_pretraining(parse_arguments([*argv, *QUICK, "--architecture", json.dumps(architecture)]))


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
def test_time_series_classification(series, attention):
    arguments = ["--dataset", series, "--test_split", "test", "--task", "time-series-classification"]
    arguments += ["--torch_optimizer", "RAdam", "--output_dir", "out"]
    metrics = pretrain(*arguments, **SERIES, attn_implementation=attention)
    model = FlowformerForTimeSeriesClassification.from_pretrained("out/model")
    assert (model.config.num_input_channels, model.config.max_position_embeddings) == (2, 9)
    assert model.config._attn_implementation == attention
    assert read_results("out/model") == metrics
    assert run_evaluation("out/model", series, task="time-series-classification") == pytest.approx(metrics)
    card = Path("out/model/README.md").read_text()
    assert "from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification" in card


def test_series_that_the_model_cannot_read(series):
    arguments = ["--dataset", series, "--task", "time-series-classification", "--output_dir", "out"]
    with pytest.raises(ValueError, match="the series have 2 channels, and the model `num_input_channels=3`"):
        pretrain(*arguments, **SERIES, num_input_channels=3)
    with pytest.raises(ValueError, match="up to 7 steps, and the model `max_position_embeddings=5`"):
        pretrain(*arguments, **SERIES, max_position_embeddings=5)


def test_list_ops(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    options = "{min_length: 5, max_length: 30, train_rows: 20, test_rows: 10, validation_rows: 1}"
    arguments = ["--dataset", "list_ops", "--dataset_options", options, "--test_split", "test", "--output_dir", "out"]
    metrics = pretrain(*arguments, "--task", "text-classification", **SMALL, modality="text", vocab_size=16)
    assert metrics.keys() == {"loss", "accuracy", "macro_f1"}


def test_text_from_random_weights(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    texts = [text for text, _ in tiny.SENTENCES] * 2
    Dataset.from_dict({"text": texts}).to_json("text.jsonl")
    arguments = ["--dataset", "text.jsonl", "--test_dataset", "text.jsonl", "--block_size", "16"]
    arguments += ["--task", "text-generation", "--tokenizer", "{vocab_size: 300}", "--output_dir", "out"]
    metrics = pretrain(*arguments, **TEXT)
    assert metrics["perplexity"] == pytest.approx(math.exp(metrics["loss"]))
    tokenizer = AutoTokenizer.from_pretrained("out/model")
    model = AutoModelForCausalLM.from_pretrained("out/model")
    assert model.config.vocab_size == len(tokenizer) and model.config.eos_token_id == tokenizer.eos_token_id
    again = run_evaluation("out/model", "text.jsonl", task="text-generation", block_size=16)
    assert again == pytest.approx(metrics, rel=1e-4)
    with pytest.raises(ValueError, match="`block_size=64` is more than the 32 tokens"):
        pretrain(*arguments, "--block_size", "64", "--overwrite", **TEXT)


def test_offline_reinforcement_learning(tmp_path, monkeypatch):
    pytest.importorskip("gymnasium")
    monkeypatch.chdir(tmp_path)
    arguments = ["--dataset", "trajectories", "--task", "offline-reinforcement-learning", "--output_dir", "out"]
    arguments += ["--dataset_options", "{environment: CartPole-v1, policy: random, episodes: 4}"]
    play = ["--trajectories", "{context_length: 4, episodes: 2, references: [20, 500]}"]
    metrics = pretrain(*arguments, *play, "--learning_rate", "0.1", **SMALL, modality="trajectory")
    assert metrics["normalised_score"] == read_results("out/model")["normalised_score"]
    model = DecisionFlowformer.from_pretrained("out/model")
    sizes = (model.config.state_dim, model.config.act_dim, model.config.max_episode_length)
    assert sizes == (4, 2, 500) and model.config.discrete_actions
    bias = model.predict_action.bias
    assert not torch.equal(bias, torch.zeros_like(bias)), "it has learned"
    with pytest.raises(ValueError, match=r"`trajectories` has no \['length'\], accepted"):
        pretrain(*arguments, "--trajectories", "{length: 4}", "--overwrite", **SMALL, modality="trajectory")
    with pytest.raises(ValueError, match="have state_dim 4, and the model `state_dim=3`"):
        pretrain(*arguments, *play, "--overwrite", **SMALL, modality="trajectory", state_dim=3)


def test_a_new_tokenizer_is_for_new_weights():
    with pytest.raises(ValueError, match="`tokenizer` as a mapping trains a new one"):
        parse_arguments(["--model", "bert", "--dataset", "x", "--tokenizer", "{vocab_size: 300}"])
    with pytest.raises(ValueError, match="`torch_optimizer` should be a class of torch.optim, got 'Best'"):
        parse_arguments(["--model", "bert", "--dataset", "x", "--torch_optimizer", "Best"])
