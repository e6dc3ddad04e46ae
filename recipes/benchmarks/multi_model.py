"""Every method that draws on several pre-trained models, beside each of them fine-tuned alone.

    python recipes/benchmarks/multi_model.py                                        # everything, three seeds
    python recipes/benchmarks/multi_model.py --pairs zoo-digits --methods zoo_tuning --seeds 0

A cell is one method on one hub and target with a seed. One that is finished in --runs_dir is not run again, so a run
that was interrupted goes on; the report holds all that are finished. Trained methods start from the model of the
highest LogME on the training rows, as `hf-transfer adapt --from-ranking DIR --combine METHOD` does. What is made of
fine-tuned models (ensembles, soups) is made of all that were fine-tuned alone.

Accuracy and negative log-likelihood are on rows that nothing was trained or chosen on; greedy ensembles and soups
choose by further rows, see multi_model_hubs.py. GFLOPs are of a row, counted by PyTorch: of one training step without
what was computed once before, and of one prediction. Rows a second are those of one thread's processor time.
Writes `multi_model.json`, `.md` and `.png` into the output folder.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import COMMON, end_by, one_thread
from datasets import load_from_disk
from multi_model_hubs import ANCESTORS, HUBS, PAIRS, TARGETS, member, members, rows_of, settings_of, shorten
from multi_model_report import write
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode, conv_flop_count
from transformers import PreTrainedModel, TrainerCallback

from hf_transfer.data.prepare import prepare
from hf_transfer.multi_model import (
    Ensemble,
    greedy_ensemble,
    greedy_soup,
    load_members,
    merge_regmean,
    merge_task_arithmetic,
    merge_ties,
    predictions_of,
    uniform_soup,
)
from hf_transfer.multi_model.ensemble_selection import accuracy, log_likelihood
from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import MODEL_FOLDER, finish, make_adaptation
from hf_transfer.runs.arguments import Experiment, parse_arguments
from hf_transfer.runs.combine import combined
from hf_transfer.runs.models import load_processor
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import ModelArguments

Cell = tuple[str, str, str, int]
"""(hub, target, method, seed)."""

ALONE = "alone"
LARGE_BATCH = 100
Batches = list[dict[str, Tensor]]
SETTINGS = {**COMMON, "use_cpu": True, "per_device_eval_batch_size": LARGE_BATCH, "logging_steps": 50}

COMBINED: dict[str, tuple[str, dict[str, Any]]] = {
    "feature_distillation": ("feature_distillation", {}),
    "b_tuning": ("b_tuning", {}),
    "b_tuning, weight 1": ("b_tuning", {"objectives": {"b_tuning": {"weight": 1.0}}}),
    "b_tuning, weight 100": ("b_tuning", {"objectives": {"b_tuning": {"weight": 100.0}}}),
    "zoo_tuning": ("zoo_tuning", {"converters": {"zoo_tuning": {"lite": False}}}),
    "zoo_tuning, lite": ("zoo_tuning", {}),
    "zoo_tuning, lite, alike": ("zoo_tuning", {"converters": {"zoo_tuning": {"own_share": None}}}),
    "knowledge_flow": ("knowledge_flow", {}),
    "hub_pathway": ("hub_pathway", {}),
}
"""Row -> the method of `--combine` and what is given to it beside the models."""


@dataclass(frozen=True)
class Given:
    """What the models that are made of fine-tuned ones are made of: their folders, rows to choose by, the rows that
    they were trained on, and the start of them all."""

    folders: list[str]
    choice: Batches
    train: Batches
    start: str


def chosen_ensemble(given: Given) -> PreTrainedModel:
    models = load_members(given.folders)
    weights = greedy_ensemble(*predictions_of(models, given.choice), metric="log_likelihood")  # the rows are few
    return Ensemble.of(models, weights.tolist())


def chosen_soup(given: Given) -> PreTrainedModel:
    def score(model: PreTrainedModel) -> float:
        (predictions,), labels = predictions_of([model], given.choice)
        return accuracy(predictions, labels)

    return greedy_soup(given.folders, score).model


MADE: dict[str, Callable[[Given], PreTrainedModel]] = {
    "ensemble": lambda given: Ensemble.of(load_members(given.folders)),
    "greedy ensemble": chosen_ensemble,
    "uniform soup": lambda given: uniform_soup(given.folders).model,
    "greedy soup": chosen_soup,
    "task arithmetic": lambda given: merge_task_arithmetic(given.folders, given.start).model,
    "TIES": lambda given: merge_ties(given.folders, given.start).model,
    "RegMean": lambda given: merge_regmean(given.folders, [given.train] * len(given.folders)).model,
}
"""Row -> what makes it of the fine-tuned members."""
OF_ONE_ARCHITECTURE = (*list(MADE)[2:], *(row for row in COMBINED if row.startswith("zoo_tuning")))


def methods(hub: str) -> list[str]:
    """The rows of a hub in the order in which they can be run."""
    rows = [f"{ALONE}: {name}" for name in HUBS[hub]] + [*MADE, "distillation", *COMBINED]
    return [row for row in rows if hub in ANCESTORS or row not in OF_ONE_ARCHITECTURE]


def convolution_backward_flops(
    grad_output: torch.Size, inputs: torch.Size, weight: torch.Size, *settings: Any, **more: Any
) -> int:
    """Of both gradients of a convolution, each as many as of its forward; PyTorch 2.13 counts those of a weight in
    groups once for every group, 14 times the truth over a step of EfficientNet-Lite0."""
    is_transposed, wanted = settings[4], settings[7]
    return sum(wanted[:2]) * conv_flop_count(list(inputs), list(weight), list(grad_output), is_transposed)


COUNTED = {torch.ops.aten.convolution_backward: convolution_backward_flops}


class StepCosts(TrainerCallback):
    """Processor time of the training steps, and the operations of one of them."""

    def __init__(self) -> None:
        self.flops, self.seconds, self.steps = 0, 0.0, 0

    def on_step_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        self.counter = FlopCounterMode(display=False, custom_mapping=COUNTED) if state.global_step == 1 else None
        if self.counter is not None:
            self.counter.__enter__()
        self.started = time.process_time()

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        if self.counter is not None:
            self.counter.__exit__(None, None, None)
            self.flops = self.counter.get_total_flops()
        else:
            self.seconds += time.process_time() - self.started
            self.steps += 1


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    hub, target, method, seed = cell
    return (runs_dir / f"{hub}-{target}" / f"{method}-{seed}").resolve()


def ranking_of(cell: Cell, runs_dir: Path) -> str:
    """The folder of the ranking of a hub on the training rows of a target."""
    hub, target, _, seed = cell
    folder = run_folder((hub, target, "ranking", seed), runs_dir)
    if not (folder / "ranking.json").exists():
        rows = load_from_disk(rows_of(target, seed, runs_dir)["train"])
        names = list(members(hub, runs_dir).values())
        rank_models(names, rows, score="logme", layers="last", output_dir=folder, progress=False)
    return str(folder)


def experiment_of(cell: Cell, runs_dir: Path) -> Experiment:
    """What `hf-transfer adapt` is told for a cell that is trained."""
    hub, target, method, seed = cell
    rows, ranking = rows_of(target, seed, runs_dir), ranking_of(cell, runs_dir)
    settings = {**SETTINGS, **settings_of(hub, target), "seed": seed, "overwrite": True}
    settings |= {"dataset": rows["train"], "test_dataset": rows["test"]}
    settings |= {"model": ranked_models(ranking, 1)[0], "output_dir": str(run_folder(cell, runs_dir))}
    kind, more = COMBINED.get(method, (None, {}))
    if method.startswith(ALONE):
        settings["model"] = members(hub, runs_dir)[method.removeprefix(f"{ALONE}: ")]
    elif method == "distillation":
        settings["objectives"] = {"distillation": {"teacher": fine_tuned(cell, runs_dir)}}
    experiment = parse_arguments([], **settings, **more)
    return experiment if kind is None else combined(experiment, kind, ranking, len(HUBS[hub]))


def trained(cell: Cell, runs_dir: Path) -> tuple[str, StepCosts]:
    """Train the model of a cell and save it; its folder and what steps cost."""
    experiment = experiment_of(cell, runs_dir)
    trainer, data = make_adaptation(experiment)
    costs = StepCosts()
    trainer.add_callback(costs)
    finish(trainer, experiment, data)
    return str(run_folder(cell, runs_dir) / MODEL_FOLDER), costs


def fine_tuned(cell: Cell, runs_dir: Path) -> list[str]:
    """The folders of the members of a hub that were fine-tuned alone on the same rows."""
    hub, target, _, seed = cell
    return [str(run_folder((hub, target, f"{ALONE}: {name}", seed), runs_dir) / MODEL_FOLDER) for name in HUBS[hub]]


def batches_of(target: str, rows: str, folder: str) -> Batches:
    """Rows as the batches that the model of a folder reads."""
    settings = TARGETS[target].settings
    config = load_members([folder])[0].config
    processor = load_processor(ModelArguments(model=folder, task=settings["task"]), config)
    ready = prepare(load_from_disk(rows), config, processor, max_length=settings.get("max_length"))
    collate = task_named(settings["task"]).collator(processor, ready)
    options = {} if collate is None else {"collate_fn": collate}
    return list(DataLoader(ready, batch_size=LARGE_BATCH, **options))


def measured(model: PreTrainedModel, batches: Batches) -> dict[str, float]:
    """What a model is worth and costs on test rows."""
    started = time.process_time()
    (predictions,), labels = predictions_of([model], batches)
    seconds = time.process_time() - started
    with FlopCounterMode(display=False) as counter:
        predictions_of([model], batches[:1])
    return {
        "accuracy": accuracy(predictions, labels),
        "nll": -log_likelihood(predictions, labels),
        "parameters": sum(parameter.numel() for parameter in model.parameters()),
        "gflops": counter.get_total_flops() / len(batches[0]["labels"]) / 1e9,
        "rows_per_second": len(labels) / seconds,
    }


def run(cell: Cell, runs_dir: Path) -> dict[str, Any]:
    """The figures of one cell."""
    hub, target, method, seed = cell
    rows = rows_of(target, seed, runs_dir)
    if method in MADE:
        folders = fine_tuned(cell, runs_dir)
        train, choice, test = (batches_of(target, rows[split], folders[0]) for split in ("train", "choice", "test"))
        start = member(ANCESTORS[hub], runs_dir) if hub in ANCESTORS else ""
        return measured(MADE[method](Given(folders, choice, train, start)), test)
    folder, costs = trained(cell, runs_dir)
    found = measured(load_members([folder])[0], batches_of(target, rows["test"], folder))
    batch = settings_of(hub, target)["per_device_train_batch_size"]
    found |= {"train_gflops": costs.flops / batch / 1e9, "train_rows_per_second": batch * costs.steps / costs.seconds}
    if method.startswith(ALONE):
        name = members(hub, runs_dir)[method.removeprefix(f"{ALONE}: ")]
        scores = json.loads((Path(ranking_of(cell, runs_dir)) / "ranking.json").read_text())["rows"]
        found["logme"] = next(row["score"] for row in scores if row["model"] == name)
    else:
        shutil.rmtree(folder)
    return found


def finished(cell: Cell, runs_dir: Path) -> bool:
    """Run a cell unless it is finished; one that fails says why, and is tried again by the next run."""
    file = run_folder(cell, runs_dir) / "cell.json"
    if file.exists():
        return True
    started = time.perf_counter()
    try:
        found = run(cell, runs_dir)
    except Exception as error:  # one cell's failure should not lose the others
        print(f"{cell}: {type(error).__name__}: {error}", flush=True)
        return False
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{cell}: {100 * found['accuracy']:.1f} in {time.perf_counter() - started:.0f} s", flush=True)
    return True


def found_cells(runs_dir: Path) -> dict[str, dict[str, dict[str, dict[str, Any]]]]:
    """Pair -> row -> seed -> figures, of every finished cell."""
    made: dict[str, Any] = {}
    for hub, target in PAIRS:
        rows: Mapping[str, dict[str, Any]] = {row: {} for row in methods(hub)}
        for row, runs in rows.items():
            for file in sorted((runs_dir / f"{hub}-{target}").glob(f"{row}-*/cell.json")):
                runs[file.parent.name.rsplit("-", 1)[1]] = json.loads(file.read_text())
        if some := {row: runs for row, runs in rows.items() if runs}:
            made[f"{hub}-{target}"] = some
    return made


def main() -> None:
    pairs = {f"{hub}-{target}": (hub, target) for hub, target in PAIRS}
    every = list(dict.fromkeys(row for hub in HUBS for row in methods(hub)))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", nargs="+", choices=list(pairs), default=list(pairs))
    parser.add_argument("--methods", nargs="+", choices=every, default=every)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="of every training, in place of its own number: a quick trial")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/multi_model"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    one_thread()
    if arguments.steps is not None:
        shorten(arguments.steps)
    one, failed = partial(finished, runs_dir=arguments.runs_dir), 0
    for seed in arguments.seeds:
        for pair in arguments.pairs:
            hub, target = pairs[pair]
            for method in methods(hub):
                if method in arguments.methods:
                    failed += not one((hub, target, method, seed))
    write(found_cells(arguments.runs_dir), arguments.output_dir)
    end_by(failed)


if __name__ == "__main__":
    main()
