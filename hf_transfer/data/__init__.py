"""Data sets, what makes model inputs of them, and the collators of text pre-training."""

from __future__ import annotations

import importlib
from typing import Any

TEXT_PRETRAINING: dict[str, str] = {
    "masked_language": "hf_transfer.data.masked_language:MaskedLanguageCollator",
    "permuted_language": "hf_transfer.data.permuted_language:PermutationCollator",
    "span_corruption": "hf_transfer.data.span_corruption:SpanCorruptionCollator",
    "denoising": "hf_transfer.data.denoising:DenoisingCollator",
    "packed_language": "hf_transfer.data.packing:PackingCollator",
}
"""What a text is made of for pre-training: name -> "module:class" of a collator."""

SERIES_PRETRAINING: dict[str, str] = {
    "masked_steps": "hf_transfer.data.masked_steps:MaskedStepsCollator",
}
"""Likewise of a series."""

_CLASSES = dict(reversed(entry.split(":")) for entry in (*TEXT_PRETRAINING.values(), *SERIES_PRETRAINING.values()))
"""Class name -> module, imported when the class is first named: whoever imports transformers imports this package."""

__all__ = ["SERIES_PRETRAINING", "TEXT_PRETRAINING", *_CLASSES]


def __getattr__(name: str) -> Any:
    if name in _CLASSES:
        return getattr(importlib.import_module(_CLASSES[name]), name)
    raise AttributeError(f"{__name__} has no `{name}`; it has {__all__}.")
