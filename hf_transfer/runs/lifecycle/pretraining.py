"""The section `pretrain` of a plan: models that it pre-trains first, each of which is a candidate.

    pretrain:
      - recipes/pretraining/mnist_digits.yaml                     a recipe of `hf-transfer pretrain`
      - {recipe: recipes/pretraining/mnist_digits.yaml, name: longer, max_steps: 800}
      - {name: masked, architecture: {model_type: ...}, task: masked-image-modeling, max_steps: 1200}

An entry that names no `dataset` reads training rows of the plan, without those that it holds out; with `rows: target`
the unlabelled target, with `rows: source` the source. One of `max_steps: 0` is an encoder with random weights.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from hf_transfer.runs.arguments import DataArguments, parse_arguments, read_yaml
from hf_transfer.runs.lifecycle.methods import ARGUMENTS, nearest
from hf_transfer.training.objectives import make_objectives

RECIPE, NAME, ROWS = "recipe", "name", "rows"
PLACED = ("output_dir", "resume", "overwrite", "model_folder", "push_to_hub", "hub_model_id", "hub_private_repo")
"""What a recipe says of its output, which the plan decides."""
DOMAIN = ("target_dataset", "target_split", "target_options")
DATA = frozenset(DataArguments.__dataclass_fields__) - {*DOMAIN, "dataset_names"}
KEYS = (ARGUMENTS | DATA | {RECIPE, NAME, ROWS, "model", "revision", "seed"}) - {*PLACED, "student_rounds", "student"}
SAVED: dict[str, Any] = {"save_strategy": "steps", "save_steps": 0.2, "save_total_limit": 2}
"""So that a kill loses a part of a pre-training only, whatever its recipe says."""
DEFAULTS: dict[str, Any] = {"logging_steps": 0.05, "report_to": [], "diagnostics": False}


@dataclass(frozen=True)
class Pretraining:
    """One model to pre-train.

    Args:
        name: of the candidate in tables.
        arguments: of `hf-transfer pretrain`.
        rows: `train`, `source` or `target` where it reads rows of the plan; None where it names a `dataset`.
    """

    name: str
    arguments: Mapping[str, Any]
    rows: str | None

    @property
    def is_random(self) -> bool:
        """Whether it takes no step."""
        return self.arguments.get("max_steps") == 0


def read_pretraining(given: Any, roles: Sequence[str], seed: int = 0) -> tuple[Pretraining, ...]:
    """The entries of the section, each with a name of its own.

    Args:
        given: the section; None where the plan has none.
        roles: of the plan's rows that may be read: train, and where they are there source and target.
        seed: of an entry that names none.

    Raises:
        FileNotFoundError: there is no such recipe.
        ValueError, TypeError: an unknown key, or what `hf-transfer pretrain` refuses.
    """
    if given is None:
        return ()
    if not isinstance(given, list) or not given:
        raise ValueError(
            f"`pretrain` in the plan should be a list of recipes or mappings of arguments, got {given!r}."
        )
    read = tuple(read_entry(one, number, roles, seed) for number, one in enumerate(given, start=1))
    names = [one.name for one in read]
    if len(set(names)) < len(names):
        raise ValueError(f"`pretrain`: every model needs a name of its own, got {names}; give `name` to each.")
    return read


def read_entry(given: Any, number: int, roles: Sequence[str], seed: int) -> Pretraining:
    """One entry. Raises as `read_pretraining`.

    Args:
        given: path of a recipe, or a mapping.
        number: of the entry, from 1.
        roles: as `read_pretraining`.
        seed: likewise.
    """
    given = {RECIPE: given} if isinstance(given, str) else given
    if not isinstance(given, Mapping) or not given:
        raise ValueError(f"`pretrain` should hold paths of recipes and mappings of arguments, got {given!r}.")
    for key in given:
        if key not in KEYS:
            raise ValueError(f"`pretrain` in the plan has no key `{key}`{nearest(key, KEYS)}.")
    own = {key: value for key, value in given.items() if key not in (RECIPE, NAME, ROWS)}
    recipe = read_yaml(given[RECIPE]) if RECIPE in given else {}
    if "model" in own or "architecture" in own:  # in place of the recipe's
        recipe = {key: value for key, value in recipe.items() if key not in ("model", "architecture")}
    name = str(given.get(NAME) or (Path(given[RECIPE]).stem if RECIPE in given else f"pretrained {number}"))
    arguments = {**DEFAULTS, "seed": seed, **{key: value for key, value in recipe.items() if key not in PLACED}, **own}
    if not arguments.get("load_best_model_at_end") and "save_strategy" not in own:
        arguments |= SAVED
    rows = rows_of(given, arguments, name, roles)
    if rows is not None:
        arguments = {key: value for key, value in arguments.items() if key not in ("dataset", "split")}
    read = Pretraining(name, arguments, rows)
    if read.is_random and arguments.get("architecture") is None:
        raise ValueError(f"`pretrain`: `{name}` takes no step, so it has random weights: give its `architecture`.")
    check({**arguments, "max_steps": 1} if read.is_random else arguments, name)
    return read


def rows_of(given: Mapping[str, Any], arguments: Mapping[str, Any], name: str, roles: Sequence[str]) -> str | None:
    """Which rows of the plan an entry reads; None where it names a dataset."""
    if ROWS not in given:
        return None if "dataset" in arguments else "train"
    rows = given[ROWS]
    if rows in ("source", "target") and rows not in roles:
        raise ValueError(f"`pretrain`: `{name}` reads the {rows}, and the plan has none: data: {{{rows}: FILE}}.")
    if rows not in roles:
        raise ValueError(f"`pretrain`: `rows` of `{name}` should be one of {list(roles)}, got {rows!r}.")
    if "dataset" in given:
        raise ValueError(f"`pretrain`: `{name}` names a `dataset` and `rows` of the plan: give one of them.")
    return rows


def check(arguments: Mapping[str, Any], name: str) -> None:
    """Raises ValueError or TypeError where `hf-transfer pretrain` would refuse the arguments."""
    named = [one for one in DOMAIN if one in arguments]
    if named:
        raise ValueError(f"`pretrain`: `{name}` reads one domain, leave `{named[0]}` out.")
    try:
        experiment = parse_arguments([], **{"dataset": "any", **arguments}, output_dir="any")
        make_objectives(experiment.config.objectives)
    except (ValueError, TypeError) as error:
        raise type(error)(f"`pretrain`, `{name}`: {error}") from error


def check_names(read: Sequence[Pretraining], candidates: Sequence[Any]) -> None:
    """Raises ValueError where a pre-trained model has the name of another candidate."""
    for one in read:
        if one.name in candidates:
            raise ValueError(f"`pretrain`: the candidate `{one.name}` exists already: give the entry another `name`.")


def starts_as(one: Pretraining) -> dict[str, Any] | None:
    """The `model` or `architecture` that is pre-trained; None where a tokenizer, and so its size, is not made yet."""
    if one.arguments.get("tokenizer") is not None:
        return None
    return {name: one.arguments[name] for name in ("model", "architecture") if one.arguments.get(name) is not None}
