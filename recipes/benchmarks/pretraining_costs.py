"""What a step of each objective costs over the plain forward and backward pass of the same model on the same rows.

The plain pass is that of the backbone on the batch of rows, its output's mean as the loss. Steps of both are timed in
turns, in processor seconds; the ratio is that of their medians. A method of two views runs the model on both. The
character setting of nanoGPT on a CPU (4 layers, 4 heads, 128 wide, context 64, batch 12, AdamW 1e-3) compares flow and
softmax attention on the bytes of Wikipedia articles, at as many steps.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from cells import COMMON, data_folder
from pretraining_images import DATA as PICTURES
from pretraining_images import MAE, pretraining_settings
from transformers import ViTMAEConfig, ViTMAEModel

from hf_transfer.data.bundled import load
from hf_transfer.modeling.anatomy import backbone_of, is_backbone
from hf_transfer.runs.adapt import make_pretraining, run_pretraining
from hf_transfer.runs.arguments import parse_arguments

STEP_OF = {f"a step of {name}": name for name in ("moco", "moco_v3", "simclr", "simsiam", "lejepa", "mae")}
WHOLE = "the encoder of mae at 75 % over all patches"
CHARACTERS = {f"characters, {name} attention": name for name in ("flow", "sdpa")}
ROWS = [*STEP_OF, WHOLE, *CHARACTERS]
TURNS, CHARACTER_STEPS, CONTEXT = 10, 2000, 64
DATA = {
    **PICTURES,
    "letters_train": lambda: load("wikipedia_sample", "train").select(range(40)),
    "letters_test": lambda: load("wikipedia_sample", "validation").select(range(2)),
}


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Costs, or the losses of a character model."""
    if row in CHARACTERS:
        return characters(CHARACTERS[row], seed, folder, quick)
    return whole_and_visible(quick) if row == WHOLE else step_over_plain(STEP_OF[row], seed, folder, quick)


def step_over_plain(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Milliseconds of both, the ratio, and rows a second of the objective."""
    settings = pretraining_settings(row, "emoji", seed, folder.parent, quick)
    settings = {key: value for key, value in settings.items() if key not in ("transfer_probes", "eval_steps")}
    settings |= {"eval_strategy": "no", "max_steps": 100, "output_dir": str(folder), "overwrite": True}
    trainer, _ = make_pretraining(parse_arguments([], **settings))
    trainer.create_optimizer_and_scheduler(num_training_steps=100)
    trainer.current_gradient_accumulation_steps = 1  # which `train` would set
    model = trainer.transfer_model.train()
    batch = next(iter(trainer.get_train_dataloader()))
    adapted = trainer.adapted_model
    backbone = adapted if is_backbone(adapted) else backbone_of(adapted)
    pixels = {"pixel_values": batch["pixel_values"]}

    def step() -> None:
        trainer.training_step(model, dict(batch))
        trainer.optimizer.step()
        model.zero_grad()
        model.after_step()

    def plain() -> None:
        hidden = adapted.config.mask_ratio if hasattr(adapted.config, "mask_ratio") else None
        if hidden is not None:
            adapted.config.mask_ratio = 0.0
        backbone(**pixels).last_hidden_state.mean().backward()
        model.zero_grad()
        if hidden is not None:
            adapted.config.mask_ratio = hidden

    own, base = in_turns(step, plain, 2 if quick else TURNS)
    return {"step, ms": own, "plain pass, ms": base, "ratio": own / base, "rows a second": 1e3 * 64 / own}


def whole_and_visible(quick: bool) -> dict[str, float]:
    """The encoder of ViTMAE with 75 % and with none of the patches hidden, twice as wide and deep as the other."""

    sizes = {key: value for key, value in MAE.items() if key not in ("model_type", "mask_ratio")}
    sizes |= {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 6, "num_channels": 3}
    model = ViTMAEModel(ViTMAEConfig(**sizes))
    pixels = torch.randn(32, 3, sizes["image_size"], sizes["image_size"])

    def passes(share: float) -> Callable[[], None]:
        def run() -> None:
            model.config.mask_ratio = share
            model(pixel_values=pixels).last_hidden_state.mean().backward()

        return run

    visible, whole = in_turns(passes(0.75), passes(0.0), 2 if quick else TURNS)
    found = {"step, ms": visible, "plain pass, ms": whole, "ratio": visible / whole}
    return {**found, "rows a second": 1e3 * 32 / visible}


def in_turns(one: Callable[[], None], other: Callable[[], None], turns: int) -> tuple[float, float]:
    """Median milliseconds of processor time of each."""
    times: tuple[list[float], list[float]] = ([], [])
    for turn in range(turns + 1):
        for call, found in zip((one, other), times):
            started = time.process_time()
            call()
            if turn:  # the first ones allocate
                found.append(1e3 * (time.process_time() - started))
    return statistics.median(times[0]), statistics.median(times[1])


def characters(attention: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """The held-out loss of a byte."""
    steps = 2 if quick else CHARACTER_STEPS
    architecture: dict[str, Any] = {"model_type": "flowformer", "modality": "text", "is_causal": True}
    architecture |= {"hidden_size": 128, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 512}
    architecture |= {"max_position_embeddings": CONTEXT, "feature_map": "relu", "attn_implementation": attention}
    settings = {**COMMON, "dataset": data_folder(DATA, "letters_train", folder.parent), "seed": seed}
    settings |= {"test_dataset": data_folder(DATA, "letters_test", folder.parent), "task": "text-generation"}
    settings |= {"architecture": architecture, "tokenizer": {"vocab_size": 258}, "block_size": CONTEXT}
    settings |= {"per_device_train_batch_size": 12, "max_steps": steps, "learning_rate": 1e-3, "adam_beta2": 0.99}
    settings |= {"weight_decay": 0.1, "warmup_steps": 100, "logging_steps": 500, "per_device_eval_batch_size": 64}
    settings |= {"eval_strategy": "steps", "eval_steps": max(1, steps // 2)}
    started = time.process_time()
    made = run_pretraining(parse_arguments([], **settings, output_dir=str(folder), overwrite=True))
    return {"held-out loss": made["loss"], "seconds": time.process_time() - started}
