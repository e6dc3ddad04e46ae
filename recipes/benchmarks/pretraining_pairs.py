"""Pairs of emoji and names: zero-shot classification and retrieval of emoji that no training has seen.

1,525 pictures of Google with their names; measured on 381 others and on the same 381 as Twitter drew them. From
scratch both towers are small: a ViT at 32 pixels and a BERT with a vocabulary of 1,000. LiT locks a ViT that was
trained for the nine categories, with their labels, or EfficientNet-Lite0 as ImageNet made it, beside MiniLM.
"""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

from cells import COMMON, data_folder, logged
from pretraining_images import DATA
from ranking_models import candidate

from hf_transfer.data.bundled import load
from hf_transfer.data.prepare import prepare
from hf_transfer.runs.adapt import finish, make_pretraining, run_pretraining
from hf_transfer.runs.arguments import parse_arguments

LENGTH = 16
BIAS = -4.8
"""Where SigLIP's bias starts: -ln(127), the share of right pairs in a batch of 128. From the usual -10 an optimizer
whose steps are as large as its rate needs thousands of them for the bias alone, and draws all pairs together first."""
VIT = {"model_type": "vit", "image_size": 32, "patch_size": 8, "hidden_size": 96, "num_hidden_layers": 3}
VIT |= {"num_attention_heads": 4, "intermediate_size": 192}
BERT = {"model_type": "bert", "hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4}
BERT |= {"intermediate_size": 192, "max_position_embeddings": LENGTH, "initializer_range": 0.05}
SCRATCH = {
    "architecture": {
        "model_type": "vision-text-dual-encoder",
        "projection_dim": 64,
        "vision_config": VIT,
        "text_config": BERT,
    },
    "tokenizer": {"vocab_size": 1000},
    "max_steps": 300,
    "per_device_train_batch_size": 128,
    "learning_rate": 2e-3,
}
PUBLIC = "clip, LiT of public towers"
ROWS: dict[str, dict[str, Any]] = {
    "clip": {**SCRATCH, "objectives": {"clip": {}}},
    "siglip": {**SCRATCH, "objectives": {"siglip": {"bias": BIAS}}},
    "clip, LiT": {**SCRATCH, "objectives": {"clip": {}}, "converters": {"lit": {}}},
    PUBLIC: {
        "architecture": {"model_type": "vision-text-dual-encoder", "projection_dim": 128, "text_config": "all-minilm"},
        "objectives": {"clip": {}},
        "converters": {"lit": {}},
        "max_steps": 150,
        "per_device_train_batch_size": 64,
        "learning_rate": 5e-4,
    },
}
LOCKED = {"dataset": "google_train", "test_dataset": "google_test", "task": "image-classification", "max_steps": 300}
LOCKED |= {"architecture": VIT, "per_device_train_batch_size": 64, "learning_rate": 1e-3, "augmentation": {}}
FIGURES = ("zero_shot_accuracy", "image_to_text_recall_1", "image_to_text_recall_5", "text_to_image_recall_5")
CHANCE = {"zero-shot": 100 / 9, "zero-shot of the largest class": 20.5, "recall at 1": 100 / 381, "at 5": 500 / 381}
"""In %, of 381 pairs in nine categories."""


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Train, and measure on held-out emoji of both vendors."""
    data = {
        "dataset": data_folder(DATA, "google_train", folder.parent),
        "test_dataset": data_folder(DATA, "google_test", folder.parent),
    }
    settings = {**COMMON, **ROWS[row], **data, "task": "zero-shot-image-classification", "max_length": LENGTH}
    architecture = settings["architecture"]
    if row == PUBLIC:
        architecture = {**architecture, "vision_config": str(candidate("efficientnet_lite0", folder.parent).resolve())}
    elif "converters" in settings:
        locked = {**COMMON, **LOCKED, **data, "seed": seed, "per_device_eval_batch_size": 128}
        locked |= {"max_steps": 2 if quick else LOCKED["max_steps"], "output_dir": str(folder / "locked")}
        tower = run_pretraining(parse_arguments([], **locked, overwrite=True)).folder
        architecture = {**architecture, "vision_config": str(tower)}
    steps = 2 if quick else ROWS[row]["max_steps"]
    settings |= {"architecture": architecture, "prompts": ["{}", "a picture of {}"], "max_steps": steps}
    settings |= {"weight_decay": 0.1, "adam_beta2": 0.98, "per_device_eval_batch_size": 128, "seed": seed}
    settings |= {"augmentation": {}, "eval_strategy": "steps", "eval_steps": max(1, steps // 3), "logging_steps": 50}
    started = time.process_time()
    arguments = parse_arguments([], **settings, output_dir=str(folder / "run"), overwrite=True)
    trainer, rows = make_pretraining(arguments)
    own = finish(trainer, arguments, rows)
    seconds = time.process_time() - started
    twitter = load(data_folder(DATA, "twitter_test", folder.parent))
    ready = prepare(twitter, trainer.adapted_model.config, trainer.processing_class, max_length=LENGTH)
    other = trainer.evaluate(ready, metric_key_prefix="other")
    watched = logged(own.folder, "image_to_text_recall_5")
    found = {f"held out: {name}": 100 * own[name] for name in FIGURES}
    found |= {f"other vendor: {name}": 100 * other[f"other_{name}"] for name in FIGURES}
    found |= {f"recall at 5, {place}/3": 100 * value for place, value in enumerate(watched[:3], start=1)}
    return {**found, "seconds": seconds}
