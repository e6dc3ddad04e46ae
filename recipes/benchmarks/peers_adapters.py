"""Few parameters beside other libraries: same texts, model, rows a step, steps, seeds.

    python recipes/benchmarks/peers_adapters.py                                     # peft and adapters, three seeds
    python recipes/benchmarks/peers_adapters.py --only hf_transfer peft --methods lora --seeds 0

MiniLM (six layers of width 384) tells the groups of books of 1,024 verses of the KJV, two epochs of 16 verses of 32
tokens a step; accuracy is of 1,000 other verses. `peft` is transformers' Trainer with PEFT, as its documentation has
it; `adapters` has an environment of its own in --runs_dir, with the transformers that it asks for. What each is told
is in peers_adapters_worker.py. Libraries take turns in fresh processes on one thread. A cell that is finished in
--runs_dir is not run again. Seconds are of the processor; memory is what the training adds to what the process held.
Writes `peers_adapters.json` and `.md`.
"""

from __future__ import annotations

import argparse
import statistics
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import torch
from cells import data_folder, end_by, mean_and_deviation, write_report
from datasets import Dataset
from machine import processor_names
from peers import OURS, PEERS, finished_cell
from ranking_data import book_group
from ranking_models import candidate
from transformers import AutoTokenizer

WORKER = Path(__file__).with_name("peers_adapters_worker.py")
STOCK = "peft"
LIBRARIES = {OURS: "hf_transfer", STOCK: "Trainer with PEFT", "adapters": PEERS["adapters"][0]}
METHODS = {
    "fine_tuning": (OURS, STOCK),
    "lora": (OURS, STOCK, "adapters"),
    "bottleneck": (OURS, "adapters"),
}
"""Method -> the libraries that have it."""
MODEL, TOKENS = "minilm_6_layers", 32
TRAINED, TESTED = 1024, 1000


def some_verses(start: int, count: int, folder: str) -> Dataset:
    """Tokens and groups of so many verses in a fixed random order."""
    tokenizer = AutoTokenizer.from_pretrained(folder)
    rows = book_group("kjv", 1).shuffle(seed=0).select(range(start, start + count))
    texts = tokenizer(list(rows["text"]), truncation=True, padding="max_length", max_length=TOKENS)
    return Dataset.from_dict(
        {name: texts[name] for name in ("input_ids", "attention_mask")} | {"labels": rows["label"]}
    )


def run_cell(library: str, method: str, seed: int, runs_dir: Path) -> dict[str, Any]:
    """Figures of a training, or why there are none."""

    def arguments() -> list[str]:
        model = str(candidate(MODEL, runs_dir).resolve())
        rows: dict[str, Callable[[], Dataset]] = {
            "train": partial(some_verses, 0, TRAINED, model),
            "test": partial(some_verses, TRAINED, TESTED, model),
        }
        data = {str(Path(data_folder(rows, name, runs_dir / "verses")).parent) for name in rows}
        return [library, method, str(seed), model, *data]

    kept = runs_dir / "adapters_trainings" / f"{library}-{method}-{seed}.json"
    return finished_cell(kept, library, WORKER, arguments, runs_dir)


def markdown(report: dict[str, Any]) -> str:
    """A line a method and library; times over those of this package, seed by seed."""
    lines = ["# Few parameters beside other libraries", "", report["machine"], "", report["settings"], ""]
    lines += ["| method | library | seeds | accuracy, % | trained | seconds | over ours | MiB | lines |"]
    lines.append("|---|---|" + "--:|" * 7)
    for method, libraries in report["methods"].items():
        ours = libraries.get(OURS, {})
        for library, runs in libraries.items():
            good = {seed: run for seed, run in runs.items() if "error" not in run}
            if not good:
                reason = next(iter(runs.values()))["error"].replace("|", "/")
                lines.append(f"| {method} | {LIBRARIES[library]} | | not measured: {reason} | | | | | |")
                continue
            columns = {name: [run[name] for run in good.values()] for name in ("accuracy", "seconds", "memory")}
            cells = {name: mean_and_deviation(values) for name, values in columns.items()}
            ratios = [
                run["seconds"] / ours[seed]["seconds"] for seed, run in good.items() if "seconds" in ours.get(seed, {})
            ]
            ratio = f"{statistics.median(ratios):.2f}" if ratios else ""
            first = next(iter(good.values()))
            figures = (cells["accuracy"], f"{first['trained']:,}", cells["seconds"], ratio, cells["memory"])
            lines.append(
                f"| {method} | {LIBRARIES[library]} | {len(good)} | {' | '.join(figures)} | {first['lines']} |"
            )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(LIBRARIES), default=list(LIBRARIES))
    parser.add_argument("--methods", nargs="+", choices=list(METHODS), default=list(METHODS))
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/peers"), help="environments and finished cells")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    runs_dir = arguments.runs_dir.resolve()
    chosen = {method: [one for one in METHODS[method] if one in arguments.only] for method in arguments.methods}
    made: dict[str, Any] = {method: {library: {} for library in libraries} for method, libraries in chosen.items()}
    for seed in arguments.seeds:
        for method, libraries in chosen.items():
            for library in libraries:
                made[method][library][seed] = run_cell(library, method, seed, runs_dir)
    settings = __doc__.split("\n\n")[2].replace("\n", " ").split(" Writes")[0]
    machine = f"{processor_names()[0]}, one thread, torch {torch.__version__}, float32."
    report = {"machine": machine, "settings": settings, "methods": made}
    write_report(arguments.output_dir, "peers_adapters", report, markdown(report))
    cells = [run for libraries in made.values() for runs in libraries.values() for run in runs.values()]
    end_by(sum("error" in run for run in cells))


if __name__ == "__main__":
    main()
