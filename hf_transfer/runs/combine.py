"""From a saved ranking to a run that draws on its best models: the objective and the converter that a method takes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.runs.arguments import Experiment

METHODS: dict[str, dict[str, str]] = {
    "b_tuning": {"objectives": "b_tuning"},
    "feature_distillation": {"objectives": "feature_distillation"},
    "hub_pathway": {"converters": "hub_pathway", "objectives": "pathways"},
    "knowledge_flow": {"converters": "teacher_layers", "objectives": "knowledge_flow"},
    "zoo_tuning": {"converters": "zoo_tuning"},
}
"""Method -> the converter and the objective that it is made of."""
OWN_SHARE = 0.9
"""Of the best model's kernels when Zoo-Tuning starts. The mean of models of unlike tasks predicts nothing, and a short
training does not mend it: recipes/benchmarks/results/multi_model.md."""


def combined(experiment: Experiment, method: str, ranking: str, top: int) -> Experiment:
    """The experiment, which starts from the best model of a ranking, with the method over the next ones.

    Keywords that the experiment gives to the method's converter or objective stay.

    Args:
        experiment: of an adaptation.
        method: a key of `METHODS`.
        ranking: folder of the saved ranking.
        top: how many models take part, the best one among them.

    Raises:
        ValueError: an unknown method, no ranking, or fewer models than `top`, or `top` is below 2.
    """
    if method not in METHODS:
        raise ValueError(f"`combine` should be one of {sorted(METHODS)}, got {method!r}.")
    if top < 2:
        raise ValueError(f"`top` should be at least 2, to combine models, got {top}.")
    others = ranked_models(ranking, top)[1:]
    given: dict[str, dict[str, Any]] = {
        "b_tuning": {"ranking": ranking, "top": top},
        "feature_distillation": {"teacher": others},
        "hub_pathway": {"checkpoints": others},
        "teacher_layers": {"checkpoints": others},
        "zoo_tuning": {"checkpoints": others, "own_share": OWN_SHARE},
    }
    parts = METHODS[method]
    if name := parts.get("converters"):
        experiment.model.converters = _with(experiment.model.converters, name, given[name])
    if name := parts.get("objectives"):
        experiment.config.objectives = _with(experiment.config.objectives, name, given.get(name, {}))
    return experiment


def _with(known: Mapping[str, Any] | None, name: str, keywords: Mapping[str, Any]) -> dict[str, Any]:
    return {**(known or {}), name: {**keywords, **((known or {}).get(name) or {})}}
