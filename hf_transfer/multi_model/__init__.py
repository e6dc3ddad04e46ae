"""Many pre-trained models: objectives with teachers, and models that are made of several."""

from __future__ import annotations

import importlib
from typing import Any

from hf_transfer.core.registry import registered

OBJECTIVES = {
    "b_tuning": "hf_transfer.multi_model.b_tuning:BTuning",
    "distillation": "hf_transfer.multi_model.distillation:Distillation",
    "feature_distillation": "hf_transfer.multi_model.feature_distillation:FeatureDistillation",
    "knowledge_flow": "hf_transfer.multi_model.knowledge_flow:Independence",
    "pathways": "hf_transfer.multi_model.pathways:Pathways",
}
"""Name -> "module:class", imported when asked for."""

CONVERTERS = {
    "hub_pathway": "hf_transfer.multi_model.pathways:convert",
    "teacher_layers": "hf_transfer.multi_model.knowledge_flow:convert",
    "zoo_tuning": "hf_transfer.multi_model.zoo_tuning:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""

COMBINATIONS = {
    "Ensemble": "hf_transfer.multi_model.ensemble:Ensemble",
    "HubPathway": "hf_transfer.multi_model.hub_pathway:HubPathway",
    "greedy_ensemble": "hf_transfer.multi_model.ensemble_selection:greedy_ensemble",
    "greedy_selection": "hf_transfer.multi_model.model_selection:greedy_selection",
    "greedy_soup": "hf_transfer.multi_model.soup:greedy_soup",
    "merge_regmean": "hf_transfer.multi_model.regmean:merge_regmean",
    "merge_task_arithmetic": "hf_transfer.multi_model.task_arithmetic:merge_task_arithmetic",
    "merge_ties": "hf_transfer.multi_model.ties:merge_ties",
    "uniform_soup": "hf_transfer.multi_model.soup:uniform_soup",
}
"""What makes one model of several after training: name -> "module:class" or "module:function"."""

_OF_MEMBERS = ("load_members", "predictions_of")

__all__ = [*COMBINATIONS, *_OF_MEMBERS]


def __getattr__(name: str) -> Any:
    if name in COMBINATIONS:
        return registered(COMBINATIONS, name, "combination")
    if name in _OF_MEMBERS:
        return getattr(importlib.import_module(f"{__name__}.members"), name)
    raise AttributeError(f"{__name__} has no `{name}`; it has {__all__}.")
