"""Data sets, what makes model inputs of them, and the collators of text pre-training."""

from hf_transfer.data.denoising import DenoisingCollator
from hf_transfer.data.masked_language import MaskedLanguageCollator
from hf_transfer.data.masked_steps import MaskedStepsCollator
from hf_transfer.data.packing import PackingCollator
from hf_transfer.data.permuted_language import PermutationCollator
from hf_transfer.data.span_corruption import SpanCorruptionCollator

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

__all__ = [
    "SERIES_PRETRAINING",
    "TEXT_PRETRAINING",
    "DenoisingCollator",
    "MaskedLanguageCollator",
    "MaskedStepsCollator",
    "PackingCollator",
    "PermutationCollator",
    "SpanCorruptionCollator",
]
