"""Random weights of a candidate's architecture: what its features are worth without any pre-training."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from pathlib import Path

import torch
from peft import PeftConfig
from torch import nn
from transformers import PreTrainedConfig

from hf_transfer.modeling.adapters import base_of, is_adapter
from hf_transfer.modeling.loading import frozen, loader_of, saved_config

# What a configuration says of a checkpoint and not of an architecture.
CHECKPOINT_FIELDS = {
    "_name_or_path", "architectures", "dtype", "finetuning_task", "id2label", "label2id", "num_labels", "problem_type",
    "torch_dtype", "transformers_version",
}  # fmt: skip


def baseline_name(name: str) -> str:
    return f"random weights of {name}"


def architecture_of(config: PreTrainedConfig) -> str:
    """A fingerprint that models of one architecture share."""
    facts = {name: value for name, value in config.to_dict().items() if name not in CHECKPOINT_FIELDS}
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:16]


def random_model(
    folder: Path,
    fetch_base: Callable[[str], Path],
    *,
    with_head: bool = False,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    seed: int = 0,
) -> nn.Module:
    """The frozen backbone of the model in `folder` (of an adapter's base), or the model with its head, newly drawn.

    Raises:
        ValueError: it was saved without the head that is asked for.
    """
    if is_adapter(folder):
        folder = fetch_base(base_of(PeftConfig.from_pretrained(str(folder))))
    config = saved_config(folder, trust_remote_code)
    loader = loader_of(config, with_head)
    # transformers has no public name for it outside its Auto classes.
    make = loader.from_config if hasattr(loader, "from_config") else loader._from_config
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = make(config, dtype=getattr(torch, dtype))
    return frozen(model, with_head)
