"""Sounds: digits spoken by one synthetic voice, to another one, and from few labelled sounds of another."""

from __future__ import annotations

from pathlib import Path

from task_setting import ADAPTERS, L2_SP, QUIET, Setting, warm

from hf_transfer.runs.arguments import read_yaml

RECIPES = Path(__file__).parents[1] / "tasks"
SHIFT = {**read_yaml(RECIPES / "spoken_us_to_scotland_cdan_mcc.yaml"), **QUIET}
ONE_VOICE = {**read_yaml(RECIPES / "spoken_digits_fine_tuning.yaml"), **QUIET}
SCOTLAND = {"dataset_options": {"voice": "en-gb-scotland"}}
METRICS = ("accuracy", "macro_f1")


def between(source: str, target: str) -> Setting:
    """Source labelled, target not; the test rows are those of the target's split `test`."""
    options = {"dataset_options": {"voice": source}, "target_options": {"voice": target}}
    weak = {"weight": 0.1}
    return Setting(
        f"Spoken digits of the voice {source} (600 labelled sounds) to those of {target} (600 unlabelled ones); "
        "measured on other pitches of its; a small AST from random weights, 200 steps of 16 + 16 sounds.",
        {**SHIFT, **options},
        {
            "source_only": {"objectives": {}},
            "coral": warm(coral={"weight": 100.0}),
            "jan": warm(jan={}),
            "dann": warm(dann=weak),
            "cdan": warm(cdan=weak),
            "mdd": warm(mdd={}),
            "mcc": warm(mcc=weak),
            "cdan_mcc": {},
        },
        METRICS,
    )


SETTINGS: dict[str, Setting] = {
    "spoken_us_to_scotland": between("en-us", "en-gb-scotland"),
    "spoken_scotland_to_us": between("en-gb-scotland", "en-us"),
    "spoken_few_50": Setting(
        "50 labelled digits of the voice en-gb-scotland, from a small AST that was trained on 600 of en-us; 200 steps "
        "of 32 sounds; measured on other pitches.",
        {**ONE_VOICE, **SCOTLAND, "max_samples": 50},
        {"fine_tuning": {}, **ADAPTERS, "l2_sp": L2_SP},
        METRICS,
        start=("spoken_us", ONE_VOICE),
    ),
}
