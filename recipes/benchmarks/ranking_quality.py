"""Part (d) of the ranking benchmark: does a score order models as fine-tuning does?

Every candidate of a target is fine-tuned with the same steps at each of two learning rates, of which the better
counts, and is given every score from its frozen features of the same training rows. Of each score and target: weighted
Kendall tau (`scipy.stats.weightedtau`) and Pearson's correlation with the accuracy.
"""

from __future__ import annotations

import json
import shutil
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import matplotlib
import torch
from cells import save_picture
from datasets import Dataset, DatasetDict, load_from_disk
from ranking_data import book_group, images, series, split_target, translation
from ranking_models import candidate
from scipy.stats import pearsonr, weightedtau

from hf_transfer.modeling.inputs import choose_columns, make_batches
from hf_transfer.modeling.loading import load_model
from hf_transfer.modeling.processors import load_processor
from hf_transfer.ranking import SCORES, FeatureExtractor
from hf_transfer.ranking.features import HeadExtractor
from hf_transfer.ranking.registry import score_class
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments

matplotlib.use("Agg")
from matplotlib import pyplot

IMAGES = (
    "flow_mnist",
    "flow_mnist_relu",
    "flow_mnist_turned",
    "flow_optical_digits",
    "flow_mnist_masked",
    "flow_image_random",
    "efficientnet_lite0",
    "efficientnet_lite1",
    "efficientnet_lite2",
)
TEXTS = (
    "minilm_6_layers",
    "minilm_3_layers",
    "minilm_1_layer",
    "minilm_random",
    "flow_book_group",
    "flow_translation",
    "flow_wikipedia",
    "flow_text_random",
)
SERIES = (
    "flow_arrow_head",
    "flow_arrow_head_deep",
    "flow_osu_leaf",
    "flow_gun_point",
    "flow_italy_power_demand",
    "flow_acsf1",
    "flow_pickup_gesture",
    "flow_series_random",
)


@dataclass(frozen=True)
class Target:
    """A task to rank for, and what fine-tuning on it may cost."""

    task: str
    make_rows: Callable[[], Dataset]
    train_rows: int
    test_rows: int
    candidates: tuple[str, ...]
    steps: int
    batch_size: int
    rates: tuple[float, float]
    max_length: int | None = None


def image_target(name: str, test_rows: int) -> Target:
    rows = partial(images, name, 1)
    return Target("image-classification", rows, 300, test_rows, IMAGES, 120, 16, (3e-4, 3e-3))


def text_target(rows: Callable[[], Dataset]) -> Target:
    return Target("text-classification", rows, 800, 500, TEXTS, 60, 16, (2e-4, 2e-3), max_length=32)


def series_target(name: str, train_rows: int, test_rows: int) -> Target:
    others = tuple(known for known in SERIES if not known.startswith(f"flow_{name}"))
    rows = partial(series, name)
    return Target("time-series-classification", rows, train_rows, test_rows, others, 80, 16, (1e-3, 5e-3))


TARGETS = {
    "optical_digits": image_target("optical_digits", 590),
    "mnist5k": image_target("mnist5k", 1000),
    "book_group": text_target(partial(book_group, "kjv", 1)),
    "translation": text_target(partial(translation, 1)),
    "italy_power_demand": series_target("italy_power_demand", 100, 500),
}


def target_rows(name: str, work_dir: Path) -> tuple[Path, DatasetDict]:
    """The rows of a target, and the folder that holds its splits as data sets."""
    folder = work_dir / "targets" / name
    if not folder.exists():
        target = TARGETS[name]
        split_target(target.make_rows(), target.train_rows, target.test_rows).save_to_disk(folder)
    return folder, load_from_disk(folder)


def fine_tune(name: str, model: Path, rate: float, work_dir: Path) -> dict[str, float]:
    """Accuracy and processor seconds of one fine-tuning; of the earlier one where it is finished."""
    folder = work_dir / "fine_tuned" / name / f"{model.name}_{rate:g}"
    if (folder / "result.json").exists():
        return json.loads((folder / "result.json").read_text())
    target, (rows, _) = TARGETS[name], target_rows(name, work_dir)
    arguments = parse_arguments(
        [],
        dataset=str(rows / "train"),
        test_dataset=str(rows / "test"),
        task=target.task,
        model=str(model),
        output_dir=str(folder),
        overwrite=True,
        max_steps=target.steps,
        per_device_train_batch_size=target.batch_size,
        per_device_eval_batch_size=50,
        learning_rate=rate,
        lr_scheduler_type="cosine",
        warmup_steps=0.1,
        weight_decay=0.01,
        max_grad_norm=1.0,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **({} if target.max_length is None else {"max_length": target.max_length}),
    )
    start = time.process_time()
    accuracy = run_adaptation(arguments)["accuracy"]
    result = {"accuracy": round(accuracy, 4), "seconds": round(time.process_time() - start, 1)}
    shutil.rmtree(folder / "model")
    (folder / "result.json").write_text(json.dumps(result) + "\n")
    return result


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


def all_scores(name: str, model: Path, work_dir: Path) -> dict[str, dict[str, float]]:
    """Every score that the model can be given, with its standard error; those of earlier runs are kept."""
    file = work_dir / "scores" / name / f"{model.name}.json"
    if file.exists():
        return json.loads(file.read_text())
    rows = target_rows(name, work_dir)[1]["train"]
    scores = {}
    for wanted in ("features", "probabilities"):
        try:
            found, labels = read_model(model, rows, TARGETS[name], with_head=wanted == "probabilities")
        except ValueError as error:
            print(f"{name} {model.name}: {error}", flush=True)
            continue
        for score in sorted(SCORES):
            if score_class(score).reads == wanted:
                # The error is read of LogME alone; others decompose a matrix for each shard.
                accumulator = score_class(score)(shards=10 if score == "logme" else 1)
                accumulator.update(found, labels)
                result = accumulator.compute()
                scores[score] = {"value": result.value, "standard_error": result.standard_error}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(scores) + "\n")
    return scores


def measure_target(name: str, work_dir: Path) -> list[dict]:
    """A row a candidate: the accuracy after fine-tuning and every score before."""
    rows = []
    for model_name in TARGETS[name].candidates:
        model = candidate(model_name, work_dir)
        tuned = {rate: fine_tune(name, model, rate, work_dir) for rate in TARGETS[name].rates}
        rate = max(tuned, key=lambda rate: tuned[rate]["accuracy"])
        facts = {"model": model_name, "accuracy": tuned[rate]["accuracy"], "learning_rate": rate}
        facts["seconds"] = max(result["seconds"] for result in tuned.values())
        rows.append({**facts, "scores": all_scores(name, model, work_dir)})
        print(name, model_name, {f"{rate:g}": result for rate, result in tuned.items()}, flush=True)
    return rows


def correlations(rows: list[dict]) -> dict[str, dict[str, float]]:
    """Of each score that at least three candidates have and that tells them apart: their number, weighted tau and
    Pearson's correlation.
    """
    found = {}
    for score in sorted(SCORES):
        pairs = [(row["scores"][score]["value"], row["accuracy"]) for row in rows if score in row["scores"]]
        if len({value for value, _ in pairs}) > 1 and len(pairs) >= 3:
            values, accuracies = zip(*pairs)
            tau, pearson = weightedtau(values, accuracies).statistic, pearsonr(values, accuracies).statistic
            found[score] = {"models": len(pairs), "tau": round(float(tau), 3), "pearson": round(float(pearson), 3)}
    return found


def measure_quality(work_dir: Path, names: list[str]) -> dict:
    """Everything about the named targets."""
    targets = {}
    for name in names:
        target, rows = TARGETS[name], measure_target(name, work_dir)
        facts = {"train_rows": target.train_rows, "test_rows": target.test_rows, "steps": target.steps}
        targets[name] = {**facts, "batch_size": target.batch_size, "models": rows, "scores": correlations(rows)}
    return targets


def quality_markdown(targets: dict) -> list[str]:
    """Lines of Markdown: a table of correlations, then a table of accuracies."""
    head = "| score | " + " | ".join(targets) + " | mean |"
    lines = ["Weighted Kendall tau / Pearson with fine-tuned accuracy (number of models where not all):", "", head]
    lines.append("|---|" + "--:|" * (len(targets) + 1))
    for score in sorted(SCORES):
        found = [(target["scores"].get(score), len(target["models"])) for target in targets.values()]
        cells = [describe(*one) for one in found]
        known = [one for one, _ in found if one is not None]
        if known:
            means = (statistics.mean(one[field] for one in known) for field in ("tau", "pearson"))
            cells.append(" / ".join(f"{value:.2f}" for value in means))
        lines.append(f"| {score} | " + " | ".join(cells) + " |")
    lines += [
        "",
        "A dash: fewer than three candidates have the score, or it is the same for all. Fine-tuning was short:",
        "",
    ]
    for name, target in targets.items():
        budget = f"{target['steps']} steps of {target['batch_size']} rows"
        lines.append(f"- {name}: {target['train_rows']} training rows, {budget}, {target['test_rows']} test rows")
    lines += ["", "Accuracy in percent after fine-tuning, and LogME before:", ""]
    lines += ["| target | model | accuracy | LogME | seconds of a fine-tuning |", "|---|---|--:|--:|--:|"]
    for name, target in targets.items():
        for row in sorted(target["models"], key=lambda row: -row["accuracy"]):
            logme = row["scores"]["logme"]
            cells = (f"{100 * row['accuracy']:.1f}", f"{logme['value']:.3f} ± {logme['standard_error']:.3f}")
            lines.append(f"| {name} | {row['model']} | " + " | ".join(cells) + f" | {row['seconds']:.0f} |")
    return lines


def describe(found: dict | None, models: int) -> str:
    """Tau and Pearson of one score and target, "-" where too few models have the score."""
    if found is None:
        return "-"
    count = "" if found["models"] == models else f" ({found['models']})"
    return f"{found['tau']:.2f} / {found['pearson']:.2f}{count}"


def plot_quality(targets: dict, path: Path) -> None:
    """A panel a score and target: every candidate as a point."""
    scores = sorted(SCORES)
    figure, panels = pyplot.subplots(
        len(targets), len(scores), figsize=(2.1 * len(scores), 1.9 * len(targets)), squeeze=False
    )
    for line, (name, target) in zip(panels, targets.items()):
        for axes, score in zip(line, scores):
            for row in target["models"]:
                if score in row["scores"]:
                    axes.plot(row["scores"][score]["value"], 100 * row["accuracy"], "o", markersize=4)
            found = target["scores"].get(score)
            axes.set_title(score if found is None else f"{score}, tau {found['tau']:.2f}", fontsize=8)
            axes.tick_params(labelsize=6)
        line[0].set_ylabel(f"{name}\naccuracy, %", fontsize=8)
    figure.tight_layout()
    save_picture(figure, path)
