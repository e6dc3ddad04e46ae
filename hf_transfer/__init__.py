"""Transferability in deep learning for Hugging Face: pre-train, rank, adapt to a task or a domain, evaluate, publish.

Importing it registers our architectures with transformers' Auto classes and our tuners with PEFT, at once where these
are imported and else when they are; everything else loads when it is first named.
"""

from __future__ import annotations

import importlib
import importlib.util
from typing import Any

from hf_transfer.collision import forward_to_old, warn_about_old
from hf_transfer.version import __version__

warn_about_old()

from hf_transfer.core.moved import keep_old_paths  # noqa: E402  the warning should come before anything can fail
from hf_transfer.core.registration import watch  # noqa: E402

keep_old_paths()
watch()

_PUBLIC = {
    "FlowformerConfig": "hf_transfer.models.flowformer",
    "FlowformerModel": "hf_transfer.models.flowformer",
    "FrozenCopy": "hf_transfer.core.frozen_copy",
    "Objective": "hf_transfer.core.objective",
    "Readout": "hf_transfer.core.readout",
    "View": "hf_transfer.core.objective",
    "TransferModel": "hf_transfer.training.transfer_model",
    "TransferConfig": "hf_transfer.training.trainer",
    "TransferTrainer": "hf_transfer.training.trainer",
    "PretrainingTrainer": "hf_transfer.training.family_trainers",
    "TaskAdaptationTrainer": "hf_transfer.training.family_trainers",
    "DomainAdaptationTrainer": "hf_transfer.training.family_trainers",
    "AlternatingTrainer": "hf_transfer.training.alternating_trainer",
    "rank_models": "hf_transfer.ranking",
    "Lifecycle": "hf_transfer.runs.lifecycle",
    "load_metric": "hf_transfer.evaluation.metrics",
    "push_folder": "hf_transfer.hub",
    "pull_model": "hf_transfer.hub",
}
"""Public name -> the module it comes from, imported when the name is first used."""

__all__ = ["__version__", *_PUBLIC]


def __getattr__(name: str) -> Any:
    if name in _PUBLIC:
        return getattr(importlib.import_module(_PUBLIC[name]), name)
    if not name.startswith("_") and importlib.util.find_spec(f"{__name__}.{name}") is not None:
        return importlib.import_module(f"{__name__}.{name}")
    return forward_to_old(name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_PUBLIC})
