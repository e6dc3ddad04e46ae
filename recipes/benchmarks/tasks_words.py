"""Tagging: names in verses of the Bible, from one testament to the other, and from few tagged verses."""

from __future__ import annotations

from pathlib import Path

from task_setting import ADAPTERS, L2_SP, QUIET, Setting, warm

from hf_transfer.runs.arguments import read_yaml

RECIPES = Path(__file__).parents[1] / "tasks"
METRICS = ("entity_f1", "entity_precision", "entity_recall", "accuracy")
SHIFT = {**read_yaml(RECIPES / "names_old_to_new_dann_mcc.yaml"), **QUIET}
FEW = {**read_yaml(RECIPES / "names_fine_tuning.yaml"), **QUIET}
LORA = {"peft": {"peft_type": "LORA", "r": 8, "target_modules": ["query", "value"]}, "learning_rate": 1.0e-3}


def between(source: str, target: str) -> Setting:
    """Source tagged, target not: the test rows are those of the target."""
    options = {"dataset_options": {"testament": source}, "target_options": {"testament": target}}
    return Setting(
        f"Names in the {source} testament (1,000 tagged verses) to those in the {target} (as many untagged ones); "
        "measured on its test split; all-MiniLM, 150 steps of 8 + 8 verses.",
        {**SHIFT, **options},
        {
            "source_only": {"objectives": {}},
            "coral": warm(coral={"weight": 100.0}),
            "dann": warm(dann={"weight": 0.1}),
            "mcc": warm(mcc={"weight": 0.1}),
            "dann_mcc": {},
        },
        METRICS,
    )


SETTINGS: dict[str, Setting] = {
    "names_old_to_new": between("old", "new"),
    "names_new_to_old": between("new", "old"),
    "names_few_200": Setting(
        "Names in verses of the Old Testament from 200 tagged ones, by all-MiniLM, 100 steps of 16 verses.",
        FEW,
        {"fine_tuning": {}, "lora": LORA, "residual": ADAPTERS["residual"], "l2_sp": L2_SP},
        METRICS,
    ),
}
