"""Pre-training on text: five objectives from the same verses at equal steps, and what they are worth for a task.

Texts: 8,000 verses of the King James Bible in rows of 48 tokens, a vocabulary of 1,000. Task: which of six kinds of
book a verse is from, 33 labels a class, 600 verses of the test chapters. Every objective has the architecture that it
was made for, so each stands beside random weights of the same. (ModernBERT for masked language: a BERT of the same
size, with absolute positions, stayed at the loss of word frequencies, 5.32 held-out nats after 1,200 steps, at two
rates.)
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder, logged
from task_adaptation_targets import some_verses

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments

STEPS, BLOCK, VOCABULARY = 1200, 48, 1000
PROBE = "verses"
SCORES = ("logme", "linear_probe")
WIDTH = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4, "intermediate_size": 384}
MODERN_BERT = {"model_type": "modernbert", **WIDTH, "intermediate_size": 256, "max_position_embeddings": BLOCK}
MODERN_BERT |= {"local_attention": BLOCK, "initializer_range": 0.05, "initializer_cutoff_factor": 3.0}
FLOW = {"model_type": "flowformer", "modality": "text", "is_causal": True, "feature_map": "relu", **WIDTH}
FLOW |= {"max_position_embeddings": BLOCK}
XLNET = {"model_type": "xlnet", "d_model": 96, "n_layer": 2, "n_head": 4, "d_inner": 384, "dropout": 0.0}
T5 = {"model_type": "t5", "d_model": 96, "d_ff": 384, "d_kv": 24, "num_layers": 2, "num_heads": 4}
T5 |= {"dropout_rate": 0.0}
BART = {"model_type": "bart", "d_model": 96, "encoder_layers": 2, "decoder_layers": 2, "encoder_attention_heads": 4}
BART |= {"decoder_attention_heads": 4, "encoder_ffn_dim": 384, "decoder_ffn_dim": 384, "init_std": 0.08}
BART |= {"max_position_embeddings": BLOCK, "dropout": 0.0}

OBJECTIVES: dict[str, dict[str, Any]] = {
    "masked language": {
        "task": "fill-mask",
        "architecture": MODERN_BERT,
        "tokenizer": {"vocab_size": VOCABULARY, "mask_token": True},
        "pretraining": {"masked_language": {"probability": 0.3}},
    },
    "causal language": {"task": "text-generation", "architecture": FLOW, "tokenizer": {"vocab_size": VOCABULARY}},
    "permuted language": {
        "task": "text-generation",
        "architecture": XLNET,
        "tokenizer": {"vocab_size": VOCABULARY},
        "pretraining": {"permuted_language": {}},
    },
    "span corruption": {
        "task": "text2text-generation",
        "architecture": T5,
        "tokenizer": {"vocab_size": VOCABULARY, "sentinels": 20},
        "pretraining": {"span_corruption": {}},
    },
    "denoising": {
        "task": "text2text-generation",
        "architecture": BART,
        "tokenizer": {"vocab_size": VOCABULARY, "mask_token": True},
        "pretraining": {"denoising": {}},
    },
}
RANDOM = "random weights for "
ROWS = [name for objective in OBJECTIVES for name in (objective, RANDOM + objective)]
DATA = {
    "train": lambda: load("bible_kjv", "train").shuffle(seed=0).select(range(8000)).flatten_indices(),
    "held_out": lambda: load("bible_kjv", "validation").shuffle(seed=0).select(range(600)).flatten_indices(),
    "test": lambda: some_verses(600),
    "probe": lambda: some_verses(1000).select(range(600, 1000)),
}


def pretraining_settings(row: str, seed: int, folders: dict[str, str], quick: bool) -> dict[str, Any]:
    """The arguments of a pre-training; random weights are those after one step without a rate."""
    steps = 2 if quick else 1 if row.startswith(RANDOM) else STEPS
    settings = {**COMMON, **OBJECTIVES[row.removeprefix(RANDOM)], "dataset": folders["train"]}
    settings |= {"test_dataset": folders["held_out"], "text_columns": ["text"]}
    settings |= {"block_size": BLOCK, "max_steps": steps, "per_device_train_batch_size": 16, "seed": seed}
    settings |= {"per_device_eval_batch_size": 64, "learning_rate": 3e-3, "weight_decay": 0.01, "logging_steps": 100}
    probe = {"dataset": folders["probe"], "max_length": BLOCK}
    settings |= {"transfer_probes": {PROBE: probe, "scores": list(SCORES)}}
    settings |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 3)}
    return {**settings, "learning_rate": 0.0} if row.startswith(RANDOM) else settings


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Pre-train, probe and fine-tune."""
    folders = {name: data_folder(DATA, name, folder.parent) for name in DATA}
    settings, started = pretraining_settings(row, seed, folders, quick), time.process_time()
    made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder / "start"), overwrite=True))
    seconds = time.process_time() - started
    losses = logged(made.folder, "loss")[:3]
    found = {f"held-out loss {place}/3": value for place, value in enumerate(losses, start=1)}
    found |= {"LogME": made[f"{PROBE}_logme"], "linear probe": 100 * made[f"{PROBE}_linear_probe"]}
    adaptation = {**COMMON, "model": str(made.folder), "task": "text-classification", "dataset": folders["train"]}
    adaptation |= {"test_dataset": folders["test"], "labels_per_class": 33, "max_length": BLOCK, "seed": seed}
    adaptation |= {"max_steps": 2 if quick else 75, "per_device_train_batch_size": 32, "learning_rate": 1e-3}
    adaptation |= {"per_device_eval_batch_size": 100, "logging_steps": 25}
    tuned = run_adaptation(parse_arguments([], **adaptation, output_dir=str(folder / "target"), overwrite=True))
    return {**found, "fine-tuned": 100 * tuned["accuracy"], "seconds": seconds}
