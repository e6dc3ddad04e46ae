"""The transfer probes that a run names, made ready for its model."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from transformers import default_data_collator

from hf_transfer.data.bundled import load
from hf_transfer.data.labels import read_labels
from hf_transfer.data.prepare import prepare
from hf_transfer.evaluation.plots import plot_metrics
from hf_transfer.hub import PlotFact
from hf_transfer.ranking.settings import DEFAULT_SCORES
from hf_transfer.runs.data import some_rows
from hf_transfer.tasks import MAIN_TASKS
from hf_transfer.tasks.task import Task
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_probes import ProbeTarget, TransferProbes

ROWS = 500
KEYS = ("dataset", "split", "max_samples", "label_column", "text_columns", "max_length", "problem_type")


def make_probes(
    named: Mapping[str, Any] | None, task: Task, model: Any, processor: Any, config: TransferConfig
) -> TransferProbes | None:
    """The probes of {name: {dataset: ..., split: ..., max_samples: 500}}, or of {name: dataset}; None without any.

    Args:
        named: what the arguments say; under `scores` the names of scores, where not all of the usual ones.
        task: of the run; its kind of inputs is that of the probes.
        model: in training.
        processor: of the run.
        config: of the training.

    Raises:
        ValueError: an unknown key, a data set that cannot be read or has no labels, a task whose inputs no
            classification reads, or a training that never evaluates.
    """
    if not named:
        return None
    if task.reads not in MAIN_TASKS or not MAIN_TASKS[task.reads].reads_labels:
        raise ValueError(f"`transfer_probes` read labelled images, texts or series, and {task.name} reads other rows.")
    if config.eval_strategy == "no":
        raise ValueError("`transfer_probes` are measured at evaluations: give an `eval_strategy`, steps or epoch.")
    named = dict(named)
    scores = named.pop("scores", DEFAULT_SCORES)
    targets = {name: _target(name, spec, task, model, processor, config.seed) for name, spec in named.items()}
    return TransferProbes(targets, scores, batch_size=config.per_device_eval_batch_size)


def _target(name: str, spec: Any, task: Task, model: Any, processor: Any, seed: int) -> ProbeTarget:
    given = {"dataset": spec} if isinstance(spec, str) else spec
    if not isinstance(given, Mapping) or "dataset" not in given or set(given) - set(KEYS):
        raise ValueError(
            f"`transfer_probes`: `{name}` should be a data set or a mapping with `dataset` and any of {KEYS[1:]}, got "
            f"{spec!r}."
        )
    role = f"transfer probe `{name}`"
    rows = load(given["dataset"], given.get("split"))
    rows = some_rows(rows, given.get("max_samples", ROWS), seed)
    rows = read_labels(rows, role, given.get("label_column"), given.get("problem_type"))[0]
    reading = {"text_columns": given.get("text_columns", ()), "max_length": given.get("max_length")}
    ready = prepare(rows, model.config, processor, **reading)
    pad_token_id = getattr(model.config, "pad_token_id", 0)
    return ProbeTarget(ready, MAIN_TASKS[task.reads].collator(processor, ready, pad_token_id) or default_data_collator)


def measured_on(metric: str, named: Mapping[str, Any] | None) -> tuple[str, str] | None:
    """The data set and the split of a probe's metric, for the card; None of any other metric."""
    for name, spec in (named or {}).items():
        if name != "scores" and metric.startswith(f"{name}_"):
            given = {"dataset": spec} if isinstance(spec, str) else spec
            return given["dataset"], f"{given.get('split') or 'its'} rows, which only probe the features"
    return None


def probe_plots(trainer: TransferTrainer, folder: Path) -> list[PlotFact]:
    """The curves of the transfer probes over the training, drawn into the folder."""
    probes = getattr(trainer, "transfer_probes", None)
    if probes is None:
        return []
    path = folder / "transfer_probes.png"
    path.parent.mkdir(parents=True, exist_ok=True)
    panels = {target: [f"eval_{target}_{score}" for score in probes.settings.scores] for target in probes.targets}
    drawn = plot_metrics(trainer.state.log_history, panels, path)
    return [PlotFact(path, "Transfer probes over the training, the best layer of each")] if drawn else []
