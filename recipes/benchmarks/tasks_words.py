"""Tagging: names in verses of the Bible, from one testament to the other, and from few tagged verses."""

from __future__ import annotations

from pathlib import Path

from task_setting import Setting

from hf_transfer.runs.arguments import read_yaml

RECIPES = Path(__file__).parents[1] / "tasks"
METRICS = ("entity_f1", "entity_precision", "entity_recall", "accuracy")
LORA = {"peft_type": "LORA", "r": 8, "target_modules": ["query", "value"]}
NAMES = {**read_yaml(RECIPES / "base" / "names.yaml"), "max_length": 40, "per_device_train_batch_size": 16}
NAMES |= {"logging_steps": 1000, "disable_tqdm": True}


def between(source: str, target: str) -> Setting:
    """Source tagged, target not: the test rows are those of the target."""
    options = {"dataset_options": {"testament": source}, "target_options": {"testament": target}}
    return Setting(
        f"Names in the {source} testament (800 tagged verses) to those in the {target} (800 untagged ones); measured "
        "on its test split; all-MiniLM, 60 steps of 8 + 8 verses.",
        {**NAMES, **options, "target_dataset": "bible_names", "max_samples": 800, "max_steps": 60},
        {
            "source_only": {"objectives": {}},
            "dann": {"objectives": {"dann": {"weight": 0.1}}, "objective_warmup": 0.5},
            "mcc": {"objectives": {"mcc": {"weight": 0.1}}, "objective_warmup": 0.5},
            "dann_mcc": {"objectives": {"dann": {"weight": 0.1}, "mcc": {"weight": 0.1}}, "objective_warmup": 0.5},
        },
        METRICS,
    )


SETTINGS: dict[str, Setting] = {"names_old_to_new": between("old", "new")}
