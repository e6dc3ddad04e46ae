"""Sounds: digits spoken by one synthetic voice, to another one."""

from __future__ import annotations

from pathlib import Path

from task_setting import Setting

from hf_transfer.runs.arguments import read_yaml

RECIPES = Path(__file__).parents[1] / "tasks"
SPOKEN = {**read_yaml(RECIPES / "base" / "spoken.yaml"), "logging_steps": 1000, "disable_tqdm": True}


def between(source: str, target: str) -> Setting:
    """Source labelled, target not; the test rows are those of the target's split `test`."""
    options = {"dataset_options": {"voice": source}, "target_options": {"voice": target}}
    return Setting(
        f"Spoken digits of the voice {source} (600 labelled sounds) to those of {target} (600 unlabelled ones); "
        "measured on other pitches of its; a small AST from random weights, 200 steps of 16 + 16 sounds.",
        {**SPOKEN, **options, "target_dataset": "spoken_digits"},
        {
            "source_only": {"objectives": {}},
            "cdan": {"objectives": {"cdan": {"weight": 0.1}}, "objective_warmup": 0.5},
            "mcc": {"objectives": {"mcc": {"weight": 0.1}}, "objective_warmup": 0.5},
            "cdan_mcc": {"objectives": {"cdan": {"weight": 0.1}, "mcc": {"weight": 0.1}}, "objective_warmup": 0.5},
        },
        ("accuracy", "macro_f1"),
    )


SETTINGS: dict[str, Setting] = {"spoken_us_to_scotland": between("en-us", "en-gb-scotland")}
