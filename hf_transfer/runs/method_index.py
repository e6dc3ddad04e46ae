"""Every registered method: name, kind, family, paper, formula, keywords, and a YAML to start from.

Read from the families' registries, signatures and docstrings, so that adding a method needs no further line here. What
the list shows is read from the source; a method is imported for its keywords alone.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from functools import cached_property
from pathlib import Path
from typing import Any

from hf_transfer.core.problem_types import ANY_PROBLEM
from hf_transfer.runs.source_constants import class_constant, problem_types_in, registry_in, tree_of
from hf_transfer.validators import WORKING

PACKAGE = Path(__file__).parents[1]
FAMILIES = {
    "pretraining": "Pre-training",
    "ranking": "Ranking",
    "task_adaptation": "Task adaptation",
    "tuners": "Few parameters: PEFT tuners",
    "few_shot": "Few-shot learning",
    "multi_model": "Many pre-trained models",
    "domain_adaptation": "Domain adaptation",
    "domain_generalization": "Domain generalisation",
    "validators": "Choosing a checkpoint without target labels",
}
"""Folder -> title, in the order of the lifecycle."""
KINDS = {
    "OBJECTIVES": "objective",
    "CONVERTERS": "converter",
    "SCHEDULES": "schedule",
    "SAMPLERS": "sampler",
    "TUNERS": "tuner",
    "SCORES": "score",
    "VALIDATORS": "validator",
    "COMBINATIONS": "combination",
}
"""Name of a registry in a family's `__init__` -> what it holds."""
ELSEWHERE = (
    ("pretraining", "collator", "hf_transfer.data", "TEXT_PRETRAINING"),
    ("pretraining", "collator", "hf_transfer.data", "SERIES_PRETRAINING"),
)
"""(family, kind, module, registry) of the registries that lie in no family's folder."""
IDENTIFIER = re.compile(r"\d{4}\.\d{4,5}|10\.\d{4,}/\S+|https://\S+")
NOT_SETTINGS = {
    "converter": {"model"},
    "collator": {"tokenizer", "seed", "vocabulary"},
    "schedule": {"rows"},
    "score": {"shards"},
    "sampler": {"target_probabilities", "source_labels"},
    "validator": {"features", "logits", "domain", "labels", "problem_type", "prior"},
}
"""Kind -> parameters that a run gives, not the user."""


@dataclass(frozen=True)
class Method:
    """One registered method.

    Args:
        name: its key in the registry.
        kind: a value of `KINDS`, or "collator".
        family: a key of `FAMILIES`.
        target: "module:attribute".
    """

    name: str
    kind: str
    family: str
    target: str

    @cached_property
    def object(self) -> Any:
        """The class or function."""
        module, attribute = self.target.split(":")
        return getattr(importlib.import_module(module), attribute)

    @property
    def file(self) -> str:
        """Its file inside the package: "domain_adaptation/cdan.py"."""
        path = self.target.split(":")[0].removeprefix("hf_transfer.").replace(".", "/")
        return f"{path}.py" if (PACKAGE / f"{path}.py").is_file() else f"{path}/__init__.py"

    @cached_property
    def docstring(self) -> str:
        """Of its file: what is computed, formula, paper."""
        return ast.get_docstring(tree_of(self.target.split(":")[0])) or ""

    @property
    def summary(self) -> str:
        """The first line of the docstring."""
        return self.docstring.partition("\n")[0].rstrip(".")

    @property
    def formula(self) -> str:
        """The indented lines of the docstring."""
        lines = self.docstring.splitlines()
        return "\n".join(line for line in lines if line.startswith("    ")) or self.summary

    @property
    def paper(self) -> str:
        """Address of the paper."""
        paper = self._constant("paper")
        paper = _paper_in(self.docstring) if paper is None else ast.literal_eval(paper)
        if re.fullmatch(r"\d{4}\.\d{4,5}", paper):
            return f"https://huggingface.co/papers/{paper}"
        return f"https://doi.org/{paper}" if paper.startswith("10.") else paper

    @property
    def tasks(self) -> list[str]:
        """Problem types that it is defined for; empty where all are."""
        if self.kind == "validator":
            return [problem for problem, names in WORKING.items() if self.name in names]
        value = self._constant("tasks")
        tasks = ANY_PROBLEM if value is None else problem_types_in(value)
        return [] if tasks == ANY_PROBLEM else sorted(tasks)

    def _constant(self, name: str) -> ast.expr | None:
        """What its class assigns to a name; None where there is nothing of that name."""
        return class_constant(*self.target.split(":"), name)

    @property
    def keywords(self) -> dict[str, Any]:
        """Keyword -> default; `inspect.Parameter.empty` where one has to be given."""
        parameters = inspect.signature(self.object).parameters.values()
        given = NOT_SETTINGS.get(self.kind, set())
        if self.kind == "tuner":  # the fields that every PEFT configuration has say nothing about this one
            given = {one.name for one in parameters} - set(self.object.__annotations__)
        named = (one for one in parameters if one.kind is not one.VAR_KEYWORD and one.name not in given)
        return {one.name: one.default for one in named}

    def as_row(self) -> dict[str, Any]:
        """What a script reads of it."""
        shown = ("name", "kind", "family", "summary", "paper", "target")
        return {key: getattr(self, key) for key in shown} | {"problem_types": self.tasks or "all"}


def _paper_in(docstring: str) -> str:
    """The first identifier of a paper after the word "Paper", or else of the whole docstring."""
    found = IDENTIFIER.search(docstring, max(docstring.find("Paper"), 0))
    return found.group().rstrip(".,;:)") if found else ""


def all_methods() -> list[Method]:
    """Every registered method, by family in the order of `FAMILIES`, then by name."""
    found = [*_in_families(), *(row for place in ELSEWHERE for row in _in_registry(*place))]
    order = list(FAMILIES)
    return sorted(found, key=lambda one: (order.index(one.family), one.name.lower()))


def _in_families() -> Iterator[Method]:
    for family in FAMILIES:
        for registry, kind in KINDS.items():
            yield from _in_registry(family, kind, f"hf_transfer.{family}", registry)


def _in_registry(family: str, kind: str, module: str, registry: str) -> Iterator[Method]:
    for name, target in registry_in(module, registry).items():
        yield Method(name, kind, family, target)


def methods_named(name: str) -> list[Method]:
    """The methods with this name; `mdd` is an objective and a validator.

    Raises:
        ValueError: there is none; the message names the nearest.
    """
    methods = all_methods()
    plain = name.lower().replace("-", "_")
    if named := [one for one in methods if one.name.lower() == plain]:
        return named
    near = get_close_matches(plain, sorted({one.name.lower() for one in methods}), n=3, cutoff=0.5)
    advice = f"did you mean {' or '.join(f'`{one}`' for one in near)}? " if near else ""
    raise ValueError(f"unknown method `{name}`: {advice}`hf-transfer methods` lists all.")
