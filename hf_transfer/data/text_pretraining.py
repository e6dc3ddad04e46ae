"""What a text is made of for pre-training, by its name in `hf_transfer.data.TEXT_PRETRAINING`."""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_transfer.core.registry import registered
from hf_transfer.data import TEXT_PRETRAINING
from hf_transfer.data.text_collator import TextCollator

OF_THE_RUN = frozenset({"tokenizer", "seed", "vocabulary"})
"""Keywords of the collators that a run gives itself."""


def make_text_collator(
    settings: Mapping[str, Any], tokenizer: Any, accepted: Mapping[str, Mapping[str, Any]], task: str
) -> TextCollator:
    """The collator that the settings name.

    Args:
        settings: one name -> keywords or None, such as {"span_corruption": {"noise_density": 0.15}}.
        tokenizer: which makes the rows.
        accepted: names that the task knows -> keywords that it sets itself.
        task: for messages.

    Raises:
        ValueError: no tokenizer, not one name, one that the task does not know, an unknown keyword, or one out of
            range.
    """
    if not isinstance(tokenizer, PreTrainedTokenizerBase):
        raise ValueError(
            f"{task} needs the tokenizer that made the rows: give `tokenizer`, or a model saved with one."
        )
    if len(settings) != 1 or not set(settings) <= set(accepted):
        raise ValueError(f"`pretraining` should name one of {sorted(accepted)} for {task}, got {list(settings)}.")
    ((name, keywords),) = settings.items()
    if not isinstance(keywords, Mapping | None):
        raise ValueError(f"`pretraining`: the keywords of `{name}` should be a mapping, got {keywords!r}.")
    cls, fixed, keywords = registered(TEXT_PRETRAINING, name, "pre-training"), accepted[name], dict(keywords or {})
    known = set(inspect.signature(cls).parameters) - OF_THE_RUN - set(fixed)
    unknown = sorted(set(keywords) - known)
    if unknown:
        raise ValueError(f"`pretraining`: `{name}` has no {unknown}, accepted: {sorted(known)}.")
    keywords |= {key: tuple(value) for key, value in keywords.items() if isinstance(value, list)}
    return cls(tokenizer, **keywords, **fixed)
