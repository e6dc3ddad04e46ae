"""Characters of one text by a small decoder: flow attention beside softmax, at nanoGPT's setting for a CPU.

4 layers of width 128 with 4 heads, rows of 64 characters, 12 rows a step, 2,000 steps from a rate of 1e-3 to 1e-4, no
dropout. nanoGPT reports a loss of 1.88 on Shakespeare's plays; the text here is the King James Bible, and losses are
of its held-out chapters, per character (bytes).
"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments

ROWS = ("flow", "sdpa")
STEPS, BLOCK, BYTES = 2000, 64, 258
DATA = {
    "text": lambda: load("bible_kjv", "train"),
    "held_out_text": lambda: load("bible_kjv", "validation").shuffle(seed=0).select(range(600)).flatten_indices(),
}


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Train, and tell the held-out loss at five points of the training."""
    steps = 2 if quick else STEPS
    settings: dict[str, Any] = {**COMMON, "dataset": data_folder(DATA, "text", folder.parent), "seed": seed}
    settings |= {"test_dataset": data_folder(DATA, "held_out_text", folder.parent), "task": "text-generation"}
    settings |= {"tokenizer": {"vocab_size": BYTES}, "block_size": BLOCK, "text_columns": ["text"]}
    settings["architecture"] = {
        **{"model_type": "flowformer", "modality": "text", "is_causal": True, "attn_implementation": row},
        **{"feature_map": "relu", "hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4},
        **{"intermediate_size": 512, "max_position_embeddings": BLOCK, "hidden_dropout_prob": 0.0},
    }
    settings |= {"max_steps": steps, "per_device_train_batch_size": 12, "per_device_eval_batch_size": 128}
    settings |= {"learning_rate": 1e-3, "lr_scheduler_type": "cosine_with_min_lr", "warmup_steps": 0.05}
    settings |= {"lr_scheduler_kwargs": {"min_lr_rate": 0.1}, "adam_beta2": 0.99, "weight_decay": 0.1}
    settings |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 5), "logging_steps": 200}
    started = time.process_time()
    made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder / "run"), overwrite=True))
    seconds = time.process_time() - started
    history = json.loads((made.folder / "training_log.json").read_text())["log_history"]
    losses = [entry["eval_loss"] for entry in history if "eval_loss" in entry][:5]
    return {**{f"loss {place}/5": loss for place, loss in enumerate(losses, start=1)}, "seconds": seconds}
