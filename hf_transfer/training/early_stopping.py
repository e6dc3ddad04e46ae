"""The end of a training whose metric no longer improves: where a straight run ends, a resumed one does too."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from transformers import EarlyStoppingCallback, TrainerControl, TrainerState, TrainingArguments

COUNTER = "early_stopping_patience_counter"


class EarlyStopping(EarlyStoppingCallback):
    """Ends a training when `metric_for_best_model` has not improved for so many evaluations.

    As the class of transformers, but the count of evaluations goes on in a resumed training, with the patience of the
    present call, and evaluations of other rows (`metric_key_prefix`) do not count.
    """

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: TrainerControl, **kwargs: Any):
        super().on_train_begin(args, state, control, **kwargs)
        self.early_stopping_patience_counter = evaluations_without_gain(state.stateful_callbacks)

    def on_evaluate(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        metrics: Mapping[str, float],
        **kwargs: Any,
    ):
        if f"eval_{args.metric_for_best_model.removeprefix('eval_')}" in metrics:
            super().on_evaluate(args, state, control, metrics, **kwargs)


def early_stopping(patience: int | None) -> list[EarlyStopping]:
    """One, or none without a patience."""
    return [] if patience is None else [EarlyStopping(patience)]


def evaluations_without_gain(kept: Mapping[str, Any]) -> int:
    """How many there were in a row, by the `stateful_callbacks` of a trainer's state."""
    return kept.get(EarlyStopping.__name__, {}).get("attributes", {}).get(COUNTER, 0)
