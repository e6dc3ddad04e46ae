"""Pictures: masks, boxes and key points of one vendor's emoji on a photograph, to another vendor's on another."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from task_setting import ADAPTERS, L2_SP, QUIET, Setting, warm

from hf_transfer.runs.arguments import read_yaml

RECIPES = Path(__file__).parents[1] / "tasks"
MASKS = {**read_yaml(RECIPES / "base" / "emoji_masks_shift.yaml"), **QUIET}
BOXES = {**read_yaml(RECIPES / "base" / "emoji_boxes_shift.yaml"), **QUIET}
POINTS = {**read_yaml(RECIPES / "emoji_points_regda.yaml"), **QUIET}
FEW = {"dataset_options": {"vendor": "twitter", "background": 1}, "max_steps": 300, "per_device_train_batch_size": 16}
MOVED = {"augmentation": {"shift": 0.1, "zoom": 0.2}}
PLACES = {"google": 0, "twitter": 1}
"""On which photograph a vendor's emoji are pasted."""


def recipe(name: str) -> dict[str, Any]:
    """What a recipe sets beside its base: the arguments in which a method differs."""
    own = yaml.safe_load((RECIPES / f"{name}.yaml").read_text())
    return {"objectives": {}} | {key: value for key, value in own.items() if key not in ("base", "output_dir")}


def between(base: Mapping[str, Any], source: str, target: str) -> dict[str, Any]:
    """Arguments of a run from one vendor, labelled, to the other, unlabelled and measured on its test pictures."""
    options = {name: {"vendor": name, "background": PLACES[name]} for name in (source, target)}
    return {**base, "dataset_options": options[source], "target_options": options[target]}


def settings_of(source: str, target: str) -> dict[str, Setting]:
    """The three tasks from one vendor to the other."""
    shift = f"Emoji of {source} pasted on one photograph (labelled) to those of {target} on another (unlabelled), "
    weak = {"weight": 0.1}
    return {
        f"masks_{source}_to_{target}": Setting(
            f"{shift}64x64 pixels, three kinds and background; a SegFormer of 0.1 million random weights, "
            "600 steps of 16 + 16 scenes; 300 test scenes of the target.",
            between(MASKS, source, target),
            {
                name: recipe(f"emoji_masks_{name}")
                for name in ("source_only", "advent", "fourier_dann", "dacs", "dacs_mcc")
            },
            ("mean_iou", "mean_accuracy", "overall_accuracy"),
        ),
        f"boxes_{source}_to_{target}": Setting(
            f"{shift}64x64 pixels, three kinds; an RT-DETR of 0.5 million random weights, 2,400 steps of "
            "16 + 16 scenes, shifted and zoomed; 300 test scenes of the target.",
            between(BOXES, source, target),
            {
                "source_only": {"objectives": {}},
                "dann_pictures": recipe("emoji_boxes_dann"),
                "dann_mcc": recipe("emoji_boxes_queries_dann_mcc"),
                "unbiased_teacher": recipe("emoji_boxes_unbiased_teacher"),
                "unbiased_teacher_dann": warm(unbiased_teacher={}, dann=weak),
            },
            ("map", "map_50", "map_75"),
        ),
        f"points_{source}_to_{target}": Setting(
            f"{shift}five points of a turned smiley, 64x64 pixels; heat maps on a small ResNet of random weights, "
            "600 steps of 16 + 16 pictures; 300 test pictures of the target.",
            between(POINTS, source, target),
            {
                "source_only": {"objectives": {}},
                "dann": warm(dann=weak),
                "regda": {"objectives": {"regda": {}}},
                "regda_dann": warm(regda={}, dann=weak),
            },
            ("pck_05", "pck_10", "mean_error"),
        ),
    }


def pretrained(source: str, target: str) -> dict[str, Setting]:
    """Masks and boxes from one vendor to the other, from weights that know ImageNet."""
    shift = f"Emoji of {source} pasted on one photograph (labelled) to those of {target} on another (unlabelled), "
    wide = {kind: read_yaml(RECIPES / f"emoji_{kind}_pretrained.yaml") for kind in ("masks", "boxes")}
    on = {kind: {name: one[name] for name in ("architecture", "max_steps")} for kind, one in wide.items()}
    return {
        f"masks_{source}_to_{target}_pretrained": Setting(
            f"{shift}64x64 pixels, three kinds and background; a UperNet on EfficientNet-Lite0 with its ImageNet "
            "weights, 300 steps of 16 + 16 scenes; 300 test scenes of the target.",
            {**between(MASKS, source, target), **on["masks"]},
            {name: recipe(f"emoji_masks_{name}") for name in ("source_only", "advent", "fourier_dann", "dacs")},
            ("mean_iou", "mean_accuracy", "overall_accuracy"),
        ),
        f"boxes_{source}_to_{target}_pretrained": Setting(
            f"{shift}64x64 pixels enlarged twice, three kinds; an RT-DETR on EfficientNet-Lite0 with its ImageNet "
            "weights, 300 steps of 16 + 16 scenes, shifted and zoomed; 300 test scenes of the target.",
            {**between(BOXES, source, target), **on["boxes"], "max_steps": 300},
            {
                "source_only": {"objectives": {}},
                "dann_pictures": recipe("emoji_boxes_dann"),
                "dann_mcc": recipe("emoji_boxes_queries_dann_mcc"),
            },
            ("map", "map_50", "map_75"),
        ),
    }


def few_labels(count: int) -> dict[str, Setting]:
    """Masks, boxes and key points of `count` labelled pictures of Twitter's emoji, from models of Google's."""
    kinds = {
        "masks": ("a SegFormer", ("mean_iou", "mean_accuracy", "overall_accuracy")),
        "boxes": ("an RT-DETR", ("map", "map_50", "map_75")),
        "points": ("heat maps on a small ResNet", ("pck_05", "pck_10", "mean_error")),
    }
    found = {}
    for kind, (model, metrics) in kinds.items():
        start = {**read_yaml(RECIPES / f"emoji_{kind}.yaml"), **QUIET}
        found[f"{kind}_few_{count}"] = Setting(
            f"{count} labelled pictures of Twitter's emoji on one photograph, from {model} trained on 1,000 of "
            "Google's on two; 300 steps of 16, shifted and zoomed; 300 test pictures of held-out emoji.",
            {**start, **FEW, **MOVED, "max_samples": count},
            {"fine_tuning": {}, **ADAPTERS, "l2_sp": L2_SP},
            metrics,
            start=(f"{kind}_google", start),
        )
    return found


SETTINGS: dict[str, Setting] = (
    settings_of("google", "twitter")
    | settings_of("twitter", "google")
    | pretrained("google", "twitter")
    | few_labels(20)
    | few_labels(100)
)
