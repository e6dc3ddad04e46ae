"""What `hf-transfer methods NAME` shows of a method: formula, keywords with defaults, and a YAML to start from."""

from __future__ import annotations

import inspect
import re
from typing import Any

import yaml

from hf_transfer.runs.method_index import PACKAGE, Method
from hf_transfer.runs.method_tables import recipes_of, usage
from hf_transfer.tasks import TASKS

LABELLED, UNLABELLED = {"model": "MODEL", "dataset": "LABELLED"}, {"model": "MODEL", "dataset": "UNLABELLED"}
START: dict[str, dict[str, Any]] = {
    "pretraining": UNLABELLED,
    "domain_adaptation": {**LABELLED, "target_dataset": "UNLABELLED"},
    "domain_generalization": {"model": "MODEL", "dataset": "LABELLED_WITH_A_COLUMN_domain"},
    "validators": {**LABELLED, "target_dataset": "UNLABELLED", "objectives": {"cdan": {}}},
}
"""Family -> what an experiment is told besides the method, `LABELLED` for the others."""
PLACEHOLDERS = {
    "teacher": "FOLDER",
    "checkpoints": ["FOLDER", "FOLDER"],
    "source_head": "FOLDER",
    "columns": {"COLUMN": 2},
}
"""Keywords without a default -> what shows their kind."""
BESIDE = {
    "b_tuning": {"objectives": {"b_tuning": {"ranking": "RANKING"}}},
    "bit_hyper_rule": {"hyper_rule": "bit"},
    "coop": {"task": "prompted-image-classification"},
    "dat": {"dat": {"classifier": "FOLDER", "target": "TARGET"}},
    "hub_pathway": {"objectives": {"pathways": {}}},
    "knowledge_flow": {"converters": {"teacher_layers": {"checkpoints": ["FOLDER", "FOLDER"]}}},
    "lit": {"objectives": {"clip": {}}},
    "pathways": {"converters": {"hub_pathway": {"checkpoints": ["FOLDER", "FOLDER"]}}},
    "prototypical": {"task_loss_weight": 0.0},
    "matching": {"task_loss_weight": 0.0},
    "teacher_layers": {"objectives": {"knowledge_flow": {}}},
}
"""Method -> further lines that it is used with."""
KEYS = {"objective": "objectives", "converter": "converters", "schedule": "schedules", "collator": "pretraining"}
"""Kind -> the key of a YAML file that names methods of it."""


def first_yaml(method: Method) -> dict[str, Any] | None:
    """A small experiment with the method; words in capitals stand for the user's folders, files and Hub ids.

    None for what is no part of an experiment.
    """
    if method.kind in ("score", "combination"):
        return None
    values = {**START.get(method.family, LABELLED)}
    if task := _task_of(method):
        values["task"] = task
    if method.kind == "tuner":
        values["peft"] = {"peft_type": method.name.upper()}
    elif method.kind == "validator":
        values["validator"] = method.name
    elif method.kind in KEYS and "hyper_rule" not in BESIDE.get(method.name, {}):
        keywords = {name: PLACEHOLDERS[name] for name in _required(method)}
        values[KEYS[method.kind]] = {method.name: keywords}
    return {**values, **BESIDE.get(method.name, {}), "output_dir": f"outputs/{method.name}"}


def _required(method: Method) -> list[str]:
    return [name for name, default in method.keywords.items() if default is inspect.Parameter.empty]


def _task_of(method: Method) -> str | None:
    """The task that the method is a pre-training of, where the data would suggest another."""
    if method.kind == "collator":
        return next(name for name, task in TASKS.items() if method.name in getattr(task, "makes", {}))
    views = method.family == "pretraining" and "views" in getattr(method.object, "needs", ())
    return "image-feature-extraction" if views else None


def command(method: Method) -> str:
    """The command that runs the YAML, or that uses the method."""
    if first_yaml(method) is None:
        return usage(method).strip("`")
    return f"hf-transfer {'pretrain' if method.family == 'pretraining' else 'adapt'} {method.name}.yaml"


def keyword_rows(method: Method) -> list[tuple[str, str, str]]:
    """(keyword, default, meaning) of everything that can be set."""
    meanings = _arguments_in(inspect.getdoc(method.object) or "")
    empty = inspect.Parameter.empty
    return [
        (name, "(needed)" if default is empty else str(default), meanings.get(name, ""))
        for name, default in method.keywords.items()
    ]


def _arguments_in(docstring: str) -> dict[str, str]:
    """Name -> meaning of every argument of a docstring's section `Args`."""
    section = re.search(r"^Args:\n(.*?)(?=^\S|\Z)", docstring, re.MULTILINE | re.DOTALL)
    items = re.findall(r"^    (\w+): (.*?)(?=^    \w+: |\Z)", section.group(1), re.M | re.S) if section else []
    return {name: " ".join(text.split()) for name, text in items}


def page_of(method: Method) -> dict[str, Any]:
    """Everything that is shown of a method, ready for JSON."""
    start = first_yaml(method)
    return {
        **method.as_row(),
        "formula": inspect.cleandoc(method.formula),
        "keywords": [dict(zip(("name", "default", "meaning"), row)) for row in keyword_rows(method)],
        "yaml": None if start is None else yaml.safe_dump(start, sort_keys=False, default_flow_style=None),
        "command": command(method),
        "recipes": [path.relative_to(PACKAGE.parent).as_posix() for path in recipes_of(method)],
    }
