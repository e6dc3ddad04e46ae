"""Does a score order models as fine-tuning does, once fine-tuning has settled?

    OMP_NUM_THREADS=1 python recipes/benchmarks/ranking_truth.py                   # every target, three seeds
    OMP_NUM_THREADS=1 python recipes/benchmarks/ranking_truth.py --targets emoji --seeds 0 --workers 2

Every candidate of a target is fine-tuned on the same labelled rows at each of three rates. After every CHECK steps the
accuracy on held-out rows is measured; a training ends when it has not risen for PATIENCE checks, and the best
checkpoint counts. Of the three rates the one of the highest held-out accuracy counts. Neither is chosen by the test
rows, whose accuracy, the mean over the seeds, is what the scores are compared with. Scores read the frozen features of
the training rows.

Of each score and target: weighted Kendall tau (`scipy.stats.weightedtau`) with an interval over candidates drawn with
replacement. A training that finished is kept in --runs_dir and is not run again. Writes `ranking_truth.json`, `.md`
and `.png` into the output folder; targets that are there and not in --runs_dir stay as they are.
"""

from __future__ import annotations

import argparse
import json
import math
import shutil
import statistics
import time
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import end_by, mean_and_deviation, save_picture, train_all, write_report
from datasets import Dataset
from machine import processors_of
from matplotlib import pyplot
from ranking_models import candidate
from ranking_targets import CHECK, MOST_CHECKS, PATIENCE, TARGETS, VALIDATION, Target, rows_of, settings_of
from scipy.stats import weightedtau

from hf_transfer.data.prepare import prepare
from hf_transfer.modeling.inputs import choose_columns, make_batches
from hf_transfer.modeling.loading import load_model
from hf_transfer.modeling.processors import load_processor
from hf_transfer.ranking import SCORES, FeatureExtractor
from hf_transfer.ranking.features import HeadExtractor
from hf_transfer.ranking.registry import score_class
from hf_transfer.runs.adapt import make_adaptation
from hf_transfer.runs.arguments import parse_arguments

RESAMPLES = 1000
"""Of the interval of a tau: 5th to 95th percentile."""
BEST_TAU, LOGME_TAU = 0.8, 0.7
"""What was hoped for, mean over the targets: of the best score, and of LogME."""
Cell = tuple[str, str, float, int]
"""Target, candidate, learning rate and seed."""


def train(cell: Cell, runs_dir: Path) -> dict[str, Any] | None:
    """Fine-tune one candidate until its held-out accuracy settles; None, and why on the screen, where that fails."""
    name, model, rate, seed = cell
    folder = (runs_dir / "trainings" / name / f"{model}-{rate:g}-{seed}").resolve()
    if (folder / "cell.json").exists():
        return json.loads((folder / "cell.json").read_text())
    started = time.process_time()
    target, rows = TARGETS[name], rows_of(name, runs_dir)
    settings = settings_of(target, rows, seed) | {"learning_rate": rate, "output_dir": str(folder), "overwrite": True}
    try:
        shutil.rmtree(folder, ignore_errors=True)
        experiment = parse_arguments([], model=str(candidate(model, runs_dir)), **settings)
        trainer, _ = make_adaptation(experiment)
        trainer.train()
        test = prepare(
            Dataset.load_from_disk(rows["test"]),
            trainer.adapted_model.config,
            trainer.processing_class,
            max_length=target.max_length,
        )
        found = {
            "accuracy": trainer.evaluate(test, metric_key_prefix="test")["test_accuracy"],
            "validation": trainer.state.best_metric,
            "best_step": trainer.state.best_global_step,
            "steps": trainer.state.global_step,
        }
    except Exception:  # one training's failure should not lose the others
        print(f"{cell}: {traceback.format_exc()}", flush=True)
        return None
    found["seconds"] = time.process_time() - started
    shutil.rmtree(folder)
    folder.mkdir(parents=True)
    (folder / "cell.json").write_text(json.dumps(found) + "\n")
    print(f"{cell}: {100 * found['accuracy']:.1f} after {found['steps']} steps, {found['seconds']:.0f} s", flush=True)
    return found


def read_model(folder: Path, rows: Dataset, target: Target, with_head: bool) -> tuple[torch.Tensor, torch.Tensor]:
    """Pooled features, or probabilities of the source head, of all rows; and their labels.

    Raises:
        ValueError: the model has no source head.
    """
    model = load_model(folder, Path, with_head=with_head)
    columns = choose_columns(rows, model)
    processor = load_processor(folder, columns.kind)
    batches = make_batches(rows, columns, processor, model, batch_size=50, max_length=target.max_length)
    extract = HeadExtractor(model) if with_head else FeatureExtractor(model)
    found, labels = zip(*((next(iter(extract(inputs).values())), known) for inputs, known in batches))
    return torch.cat(found), torch.cat(labels)


def score(pair: tuple[str, str], runs_dir: Path) -> dict[str, float]:
    """Every score of a target that a candidate can be given; those of earlier runs are kept."""
    name, model = pair
    file = runs_dir / "scores" / name / f"{model}.json"
    if file.exists():
        return json.loads(file.read_text())
    rows, scores = Dataset.load_from_disk(rows_of(name, runs_dir)["train"]), {}
    for wanted in ("features", "probabilities"):
        try:
            found, labels = read_model(candidate(model, runs_dir), rows, TARGETS[name], wanted == "probabilities")
        except ValueError as error:
            print(f"{name} {model}: {error}", flush=True)
            continue
        for known in sorted(SCORES):
            if score_class(known).reads == wanted:
                accumulator = score_class(known)(shards=1)
                accumulator.update(found, labels)
                scores[known] = accumulator.compute().value
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(scores) + "\n")
    return scores


def truth(runs: Mapping[float, Mapping[str, Any]]) -> dict[str, Any]:
    """Of the trainings of a candidate and seed, rate by rate, the one of the highest held-out accuracy."""
    rate = max(runs, key=lambda rate: runs[rate]["validation"])
    return {"rate": rate, **runs[rate], "settled": runs[rate]["steps"] < CHECK * MOST_CHECKS}


def tau_and_interval(values: Sequence[float], accuracies: Sequence[float]) -> dict[str, float]:
    """Weighted tau, and the 5th and 95th percentile of it over candidates drawn with replacement."""
    values, accuracies = np.asarray(values), np.asarray(accuracies)
    draws = np.random.default_rng(0).integers(len(values), size=(RESAMPLES, len(values)))
    taus = [float(weightedtau(values[draw], accuracies[draw]).statistic) for draw in draws]
    low, high = np.percentile([tau for tau in taus if math.isfinite(tau)], [5, 95])
    tau = float(weightedtau(values, accuracies).statistic)
    return {"tau": tau, "low": float(low), "high": float(high), "models": len(values)}


def of_target(name: str, runs_dir: Path) -> dict[str, Any]:
    """Everything that is finished of a target: its candidates, those of all rates alone, and the scores' taus."""
    target, models = TARGETS[name], {}
    for model in target.candidates:
        runs: dict[int, dict[float, dict[str, Any]]] = {}
        for rate in target.rates:
            for file in sorted((runs_dir / "trainings" / name).glob(f"{model}-{rate:g}-*/cell.json")):
                seed = int(file.parent.name.rsplit("-", 1)[1])
                runs.setdefault(seed, {})[rate] = json.loads(file.read_text())
        whole = {seed: truth(rates) for seed, rates in sorted(runs.items()) if len(rates) == len(target.rates)}
        file = runs_dir / "scores" / name / f"{model}.json"
        if whole and file.exists():
            models[model] = {"seeds": whole, "scores": json.loads(file.read_text())}
    taus = {}
    for known in sorted(SCORES):
        having = [model for model in models if known in models[model]["scores"]]
        values = [models[model]["scores"][known] for model in having]
        if len(set(values)) > 2:
            taus[known] = tau_and_interval(values, [mean_accuracy(models[model]) for model in having])
    sizes = {"train": target.train_rows, "validation": VALIDATION, "test": target.test_rows}
    return {"rows": sizes, "rates": target.rates, "models": models, "taus": taus}


def regret(facts: Mapping[str, Any], known: str) -> float | None:
    """Points of accuracy lost by the pick of a score against the best candidate that has the score."""
    having = {
        model: (one["scores"][known], mean_accuracy(one))
        for model, one in facts["models"].items()
        if known in one["scores"]
    }
    if len(having) < 3:
        return None
    return 100 * (max(accuracy for _, accuracy in having.values()) - max(having.values())[1])


def markdown(machine: str, targets: Mapping[str, Any]) -> str:
    """The page: taus, regrets, and every candidate's accuracy and scores."""
    lines = ["# Scores beside fine-tuning that has settled", "", machine, ""]
    lines += [(__doc__ or "").split("\n\n")[2].replace("\n", " "), ""]
    lines[-2] = lines[-2].replace("CHECK", str(CHECK)).replace("PATIENCE", str(PATIENCE))
    lines += ["Weighted tau [5th, 95th percentile over candidates drawn with replacement] (how many, where not all):"]
    lines += ["", "| score | " + " | ".join(targets) + " | mean |", "|---|" + "--:|" * (len(targets) + 1)]
    means = {}
    for known in sorted(SCORES):
        cells = []
        for facts in targets.values():
            one = facts["taus"].get(known)
            count = "" if one is None or one["models"] == len(facts["models"]) else f" ({one['models']})"
            cells.append("-" if one is None else f"{one['tau']:.2f} [{one['low']:.2f}, {one['high']:.2f}]{count}")
        having = [facts["taus"][known]["tau"] for facts in targets.values() if known in facts["taus"]]
        if having:
            mean = statistics.mean(having)
            if len(having) == len(targets):
                means[known] = mean
            lines.append(f"| {known} | " + " | ".join(cells) + f" | {mean:.2f} |")
    if means:
        best = max(means, key=means.__getitem__)
        lines += ["", f"Best over all targets: {best}, mean {means[best]:.2f} (hoped for: {BEST_TAU}); LogME "]
        lines[-1] += f"{means['logme']:.2f} (hoped for: {LOGME_TAU})."
    lines += ["", "Points of accuracy that the pick of a score loses against the best candidate:", ""]
    lines += ["| score | " + " | ".join(targets) + " |", "|---|" + "--:|" * len(targets)]
    for known in sorted(SCORES):
        lost = [regret(facts, known) for facts in targets.values()]
        lines.append(f"| {known} | " + " | ".join("-" if one is None else f"{one:.1f}" for one in lost) + " |")
    for name, facts in targets.items():
        lines += ["", f"## {name}", "", candidates_in_words(facts), ""]
        lines += ["| candidate | accuracy | seeds | rate | best step of | LogME | kNN | linear probe |"]
        lines += ["|---|--:|--:|--:|--:|--:|--:|--:|"]
        for model, one in sorted(facts["models"].items(), key=lambda item: -mean_accuracy(item[1])):
            runs = one["seeds"].values()
            cells = [mean_and_deviation([100 * run["accuracy"] for run in runs]), str(len(runs))]
            cells.append(", ".join(f"{rate:g}" for rate in dict.fromkeys(run["rate"] for run in runs)))
            cells.append(", ".join(f"{run['best_step']} / {run['steps']}" for run in runs))
            cells.append(f"{one['scores']['logme']:.3f}")
            cells += [f"{100 * one['scores'][known]:.1f}" for known in ("knn", "linear_probe")]
            lines.append(f"| {model} | " + " | ".join(cells) + " |")
    return "\n".join(lines) + "\n"


def mean_accuracy(facts: Mapping[str, Any]) -> float:
    return statistics.mean(run["accuracy"] for run in facts["seeds"].values())


def candidates_in_words(facts: Mapping[str, Any]) -> str:
    """Rows, rates, and how many of the counted trainings ended because nothing rose any more."""
    runs = [run for one in facts["models"].values() for run in one["seeds"].values()]
    settled, sizes = sum(run["settled"] for run in runs), facts["rows"]
    rates = ", ".join(f"{rate:g}" for rate in facts["rates"])
    return (
        f"{sizes['train']} training rows, {sizes['validation']} held out, {sizes['test']} test rows; "
        f"rates {rates}. {settled} of {len(runs)} trainings ended because it no longer rose, the others after "
        f"{CHECK * MOST_CHECKS} steps."
    )


def plot(targets: Mapping[str, Any], path: Path) -> None:
    """A panel a target and score: every candidate as a point."""
    shown = [known for known in sorted(SCORES) if any(known in facts["taus"] for facts in targets.values())]
    size = (1.9 * len(shown), 1.8 * len(targets))
    figure, panels = pyplot.subplots(len(targets), len(shown), figsize=size, squeeze=False, layout="constrained")
    for line, (name, facts) in zip(panels, targets.items()):
        for axes, known in zip(line, shown):
            for one in facts["models"].values():
                if known in one["scores"]:
                    axes.plot(one["scores"][known], 100 * mean_accuracy(one), "o", color="tab:blue", markersize=4)
            tau = facts["taus"].get(known)
            axes.set_title(known if tau is None else f"{known}, tau {tau['tau']:.2f}", fontsize=8)
            axes.tick_params(labelsize=6)
        line[0].set_ylabel(f"{name}\naccuracy, %", fontsize=8)
    save_picture(figure, path)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--candidates", nargs="+", help="some of those of each target; all by default")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="processes of one thread each")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/ranking_truth"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    pairs = [
        (name, model)
        for name in arguments.targets
        for model in TARGETS[name].candidates
        if arguments.candidates is None or model in arguments.candidates
    ]
    for name in arguments.targets:
        rows_of(name, arguments.runs_dir)
    train_all(candidate, dict.fromkeys(model for _, model in pairs), arguments.workers, arguments.runs_dir)
    train_all(score, pairs, arguments.workers, arguments.runs_dir)
    cells = [(*pair, rate, seed) for seed in arguments.seeds for pair in pairs for rate in TARGETS[pair[0]].rates]
    found = train_all(train, cells, arguments.workers, arguments.runs_dir)
    every = {name: of_target(name, arguments.runs_dir) for name in TARGETS}
    every = {name: facts for name, facts in every.items() if facts["taus"]}
    file = arguments.output_dir / "ranking_truth.json"
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": "", "targets": {}}
    kept = {name: facts for name, facts in earlier["targets"].items() if name not in every}
    known = {**kept, **every}
    every = {name: known[name] for name in TARGETS if name in known}
    machine = f"{processors_of(earlier['machine'] if kept else '')}, one thread a training, torch {torch.__version__}."
    write_report(
        arguments.output_dir, "ranking_truth", {"machine": machine, "targets": every}, markdown(machine, every)
    )
    if every:
        plot(every, arguments.output_dir / "ranking_truth.png")
    end_by(sum(one is None for one in found.values()))


if __name__ == "__main__":
    main()
