"""Old import paths keep working: `hf_transfer.trainer` is `hf_transfer.training.trainer`, the same module.

Nothing but the standard library is imported here.
"""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType

MOVED = {
    "objective": "core.objective",
    "functional.ema": "core.frozen_copy",
    "functional.registered": "core.registry",
    "model_anatomy": "modeling.anatomy",
    "model_surgery": "modeling.surgery",
    "objectives": "training.objectives",
    "transfer_config": "training.transfer_config",
    "transfer_model": "training.transfer_model",
    "trainer": "training.trainer",
    "family_trainers": "training.family_trainers",
    "alternating_trainer": "training.alternating_trainer",
    "publishing_trainer": "training.publishing_trainer",
    "checkpoints": "training.checkpoints",
    "gathered_view": "training.gathered_view",
    "converters": "training.converters",
    "card_facts": "training.card_facts",
    "task_adaptation.layer_freezing": "training.layer_freezing",
    "task_adaptation.layer_rates": "training.layer_rates",
    "doctor": "cli.doctor",
    "pretraining.irm": "domain_generalization.irm",
    "domain_adaptation.domain_coral": "domain_generalization.domain_coral",
    "domain_adaptation.groupdro": "domain_generalization.groupdro",
    "domain_adaptation.vrex": "domain_generalization.vrex",
    "domain_adaptation.mldg": "domain_generalization.mldg",
    "domain_adaptation.mix_style": "domain_generalization.mix_style",
    "domain_adaptation.sources": "functional.sources",
    "ranking.gbc": "ranking.scores.gbc",
    "ranking.h_score": "ranking.scores.h_score",
    "ranking.knn": "ranking.scores.knn",
    "ranking.leep": "ranking.scores.leep",
    "ranking.linear_probe": "ranking.scores.linear_probe",
    "ranking.logme": "ranking.scores.logme",
    "ranking.nce": "ranking.scores.nce",
    "ranking.trans_rate": "ranking.scores.trans_rate",
    "ranking.loading": "modeling.loading",
    "ranking.adapters": "modeling.adapters",
    "ranking.masks": "modeling.masks",
    "ranking.padding": "modeling.padding",
    "ranking.inputs": "modeling.inputs",
    "runs.train": "runs.saving",
    "runs.start": "runs.setup",
}
"""Old name -> where the module is now, both without `hf_transfer.`."""
PACKAGE = __name__.partition(".")[0]


class MovedLoader(Loader):
    """Puts the module of the new name under the old one."""

    def __init__(self, new_name: str):
        self.new_name = new_name

    def exec_module(self, module: ModuleType) -> None:
        sys.modules[module.__name__] = importlib.import_module(self.new_name)


class MovedFinder(MetaPathFinder):
    """Finds modules of this package by their old names."""

    def find_spec(self, name: str, path: Sequence[str] | None, target: ModuleType | None = None) -> ModuleSpec | None:
        package, _, rest = name.partition(".")
        if package != PACKAGE or rest not in MOVED:
            return None
        return ModuleSpec(name, MovedLoader(f"{PACKAGE}.{MOVED[rest]}"))


def keep_old_paths() -> None:
    """Called once by `hf_transfer/__init__.py`."""
    sys.meta_path.insert(0, MovedFinder())
