"""Evaluation modules that travel with the package, because the Hub's own need a download."""

from __future__ import annotations

from pathlib import Path

import evaluate

FOLDER = Path(__file__).parent


def metric_names() -> list[str]:
    """Names of the modules in this folder."""
    return sorted(path.parent.name for path in FOLDER.glob("*/*.py") if path.stem == path.parent.name)


def load_metric(name: str, **kwargs) -> evaluate.EvaluationModule:
    """`evaluate.load` of the module of that name in this folder; keywords go to `evaluate.load`.

    Raises:
        ValueError: when there is no such module.
    """
    if name not in metric_names():
        raise ValueError(f"`name` should be one of {metric_names()}, got {name!r}.")
    return evaluate.load(str(FOLDER / name), **kwargs)
