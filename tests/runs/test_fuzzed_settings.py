"""Recipes and plans with wrong values, unknown keys and other types end in a clear error or are taken, and soon."""

from __future__ import annotations

import copy
import math
import random
import time
from pathlib import Path
from typing import Any

import pytest
import yaml

from hf_transfer.runs.arguments import parse_arguments, read_yaml
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.training.objectives import make_objectives

RECIPES = Path(__file__).parents[2] / "recipes"
WRONG = (
    *(None, True, False, 0, -1, 10**30, -(10**30), 1e308, math.nan, math.inf, 0.5),
    *("", "x", "no", " " * 9, "é\u202e", "x" * 9999, "1e-3", "[1", "../..", "\0"),
    *([], {}, [None], [[]], {"a": 1}, {1: 2}, {None: None}, [{}], ["x", "x"], {"": {}}),
)
PLAN = {
    "data": {"train": "reviews.csv", "target": "new.csv", "test": "labelled.csv", "text_column": "text"},
    "candidates": [
        "org/model",
        "./ours",
        {"search": "finance", "limit": 20},
        {"architecture": {"model_type": "bert"}},
    ],
    "rank": {"score": "logme", "layers": "best", "top": 2},
    "task": {
        "methods": ["fine_tuning", "lora", {"l2_sp": {}, "bss": {}}],
        "search": {"learning_rate": [1e-4, 1e-3], "trials": 6},
    },
    "domain": {"methods": ["dann", {"cdan": {}, "mcc": {}}], "validator": "information_maximization", "guard": True},
    "combine": {"methods": ["b_tuning", {"zoo_tuning": {}}], "top": 3},
    "publish": {"output_dir": "out", "hub_model_id": "me/model", "private": True},
    "budget": {"minutes": 60, "memory": "20GB", "seeds": 3},
    "training": {"max_steps": 5, "learning_rate": 1e-3},
}


def places(value: Any, place: tuple = ()) -> list[tuple]:
    """Where something stands in nested mappings and lists."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = [one for key, part in inner for one in places(part, (*place, key))]
    return [place, *found] if place else found


def changed(settings: dict[str, Any], source: random.Random) -> dict[str, Any]:
    """A copy in which one value is another, or one key."""
    settings = copy.deepcopy(settings)
    place = source.choice(places(settings))
    parent = settings
    for key in place[:-1]:
        parent = parent[key]
    if source.random() < 0.75 or isinstance(parent, list):
        parent[place[-1]] = copy.deepcopy(source.choice(WRONG))
    else:
        name = source.choice((f"{place[-1]}x", "", 3, "unknown", str(place[-1]).upper()))
        parent[name] = parent.pop(place[-1])
    return settings


def refusal(read: Any, settings: Any) -> str | None:
    """What the error says, None where there is none; another kind of error fails the test."""
    try:
        read(settings)
    except (ValueError, TypeError, OSError) as error:
        return str(error)
    return None


def read_recipe(settings: dict[str, Any], folder: Path) -> None:
    file = folder / "recipe.yaml"
    file.write_text(yaml.safe_dump(settings, allow_unicode=True))
    parse_arguments([str(file)])


@pytest.mark.parametrize("rounds", [25, pytest.param(600, marks=pytest.mark.slow)])
def test_changed_settings_are_refused_in_words_or_taken(tmp_path, rounds):
    folders = ("pretraining", "task_adaptation", "multi_model", "domain_adaptation", "tasks")
    recipes = [read_yaml(file) for folder in folders for file in sorted((RECIPES / folder).glob("*.yaml"))]
    plans = [PLAN, *(read_yaml(file) for file in sorted((RECIPES / "lifecycle").glob("*.yaml")))]
    source, refused = random.Random(rounds), 0
    for _ in range(rounds):
        for every, read in ((recipes, lambda one: read_recipe(one, tmp_path)), (plans, read_plan)):
            settings = changed(source.choice(every), source)
            started = time.process_time()
            said = refusal(read, settings)
            assert time.process_time() - started < 2, settings
            assert said is None or len(said.split()) > 3, settings
            for of_python in ("not supported between", "unhashable", "has no attribute", "not iterable"):
                assert said is None or of_python not in said, (said, settings)
            refused += said is not None
    assert refused > rounds / 2


@pytest.mark.parametrize(
    "name, value, message",
    [
        ("weight_decay", math.nan, "finite"),
        ("learning_rate", math.inf, "finite"),
        ("learning_rate", -1.0, "at least 0"),
        ("per_device_train_batch_size", 0, "at least 1"),
        ("max_steps", -5, "at least -1"),
        ("seed", 2**32, "2\\*\\*32 - 1"),
        ("objectives", {"mcc": {"temprature": 2.0}}, "no keyword `temprature`.*`temperature`"),
        ("objectives", {"mcc": {"temperature": "warm"}}, "`temperature` should be a number, got 'warm'"),
        ("schedules", {"ulmfit": {"decay": []}}, "`decay` should be a number"),
    ],
)
def test_wrong_values_are_named(name, value, message):
    with pytest.raises((ValueError, TypeError), match=message):
        experiment = parse_arguments([], dataset="mnist5k", model="any", output_dir="out", **{name: value})
        make_objectives(experiment.config.objectives)


def test_keywords_of_methods_in_a_plan_are_checked():
    with pytest.raises(TypeError, match="accepted: .*'weight'"):
        read_plan({**PLAN, "task": {"methods": [{"l2_sp": {"": 1}}]}})
