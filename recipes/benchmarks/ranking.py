"""Ranking beside other implementations: speed, memory, and the same values.

    pip install -c constraints.txt "hf-transferability[benchmarks]"
    python recipes/benchmarks/ranking.py                  # all parts
    python recipes/benchmarks/ranking.py --parts a c      # some; what is known of the others is kept
    python recipes/benchmarks/ranking.py --parts b --transformer_ranker_python PEER/bin/python

    a  LogME of streamed features against the authors' own algorithm, compiled by numba; a million rows streamed
    b  one real model on one real text task against `transformer-ranker`, each in a process of its own;
       --transformer_ranker_python is the interpreter of an environment that has it
    c  time of scoring beside the time of extracting features

Whether the scores order models as fine-tuning does: ranking_truth.py. OMP_NUM_THREADS sets the threads of everything.
Writes `ranking.json` and `ranking.md` into the output folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from pathlib import Path

import torch
from machine import processor_names
from ranking_data import book_group, images
from ranking_logme import logme_markdown, measure_logme
from ranking_models import candidate, minilm
from transformers.utils import logging

from hf_transfer.ranking import rank_models

RESULTS = "ranking.json"
PEER_ROWS, PEER_ROUNDS = 2000, 3
TITLES = {
    "a": "LogME against the authors' algorithm",
    "b": "The same ranking by transformer-ranker",
    "c": "Scoring beside feature extraction",
}


def measure_peers(peer_python: str, work_dir: Path) -> dict:
    """Medians over rounds that run both libraries in turn, each in a fresh process."""
    folder = work_dir / "peer_rows"
    if not folder.exists():
        book_group("kjv", 1).select(range(PEER_ROWS)).save_to_disk(folder)
    script = str(Path(__file__).with_name("ranking_peer.py"))
    pythons = {"hf_transfer": sys.executable, "transformer_ranker": peer_python}
    runs: dict[str, list[dict]] = {library: [] for library in pythons}
    for _ in range(PEER_ROUNDS):
        for library, python in pythons.items():
            command = [python, script, library, str(minilm()), str(folder)]
            finished = subprocess.run(command, capture_output=True, text=True)
            if finished.returncode:
                raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
            runs[library].append(json.loads(finished.stdout.splitlines()[-1]))
            print(library, runs[library][-1], flush=True)
    found = {}
    for library, measured in runs.items():
        fields = ("seconds", "processor_seconds", "added_mib", "peak_mib")
        medians = {field: round(statistics.median(run[field] for run in measured), 2) for field in fields}
        found[library] = {**medians, "score": measured[0]["score"]}
    return {"model": "all-MiniLM-L6-v2", "rows": PEER_ROWS, "rounds": PEER_ROUNDS, "libraries": found}


def peers_markdown(found: dict) -> list[str]:
    lines = [
        f"{found['model']}, {found['rows']:,} verses of the King James Version and their group of books, LogME of the "
        f"best of all layers, medians of {found['rounds']} runs:",
        "",
        "| library | seconds | processor seconds | LogME | memory added, MiB | peak of the process, MiB |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for library, row in found["libraries"].items():
        seconds = f"{row['seconds']:.1f} | {row['processor_seconds']:.1f}"
        lines.append(
            f"| {library} | {seconds} | {row['score']:.5f} | {row['added_mib']:.0f} | {row['peak_mib']:.0f} |"
        )
    return lines


def measure_shares(work_dir: Path) -> list[dict]:
    """Seconds of extraction and of LogME with its standard error, for models of three sizes of features.

    EfficientNet-Lite reads pictures of its own size, and of 64 pixels, where it costs a twelfth and scoring the same.
    """
    verses, digits = book_group("kjv", 1).select(range(PEER_ROWS)), images("mnist5k", 1)
    rows = []
    for name, data, layers in (
        ("minilm_6_layers", verses, "last"),
        ("minilm_6_layers", verses, "all"),
        ("efficientnet_lite0_at_224", digits, "last"),
        ("efficientnet_lite0", digits, "last"),
        ("flow_mnist", digits, "last"),
    ):
        row = rank_models(
            [candidate(name, work_dir)], data, score="logme", layers=layers, batch_size=32, progress=False
        ).best
        share = row.seconds_score / row.seconds_features
        facts = {"model": name, "rows": row.rows, "layers": layers, "percent": round(100 * share, 2)}
        rows.append({**facts, "features_s": round(row.seconds_features, 2), "score_s": round(row.seconds_score, 3)})
        print(rows[-1], flush=True)
    return rows


def shares_markdown(rows: list[dict]) -> list[str]:
    lines = ["| model | rows | layers | features, s | scoring, s | scoring / features |", "|---|--:|---|--:|--:|--:|"]
    for row in rows:
        cells = (row["model"], row["rows"], row["layers"], row["features_s"], row["score_s"], f"{row['percent']} %")
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    return lines


WRITERS = {"a": logme_markdown, "b": peers_markdown, "c": shares_markdown}


def measure(part: str, arguments: argparse.Namespace) -> dict | list:
    """The results of one part."""
    if part == "a":
        return measure_logme(arguments.rounds)
    if part == "b":
        return measure_peers(arguments.transformer_ranker_python, arguments.work_dir)
    return measure_shares(arguments.work_dir)


def write(report: dict, output_dir: Path) -> None:
    """The report as JSON and Markdown."""
    output_dir.mkdir(parents=True, exist_ok=True)
    (output_dir / RESULTS).write_text(json.dumps(report, indent=2) + "\n")
    lines = ["# Ranking"]
    for part in sorted(report):
        lines += ["", f"## {TITLES[part]}", "", report[part]["machine"], "", *WRITERS[part](report[part]["results"])]
    (output_dir / "ranking.md").write_text("\n".join(lines) + "\n")


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", nargs="+", choices=list(TITLES), default=list(TITLES))
    parser.add_argument("--rounds", type=int, default=5, help="of part a")
    parser.add_argument("--transformer_ranker_python", default=sys.executable, metavar="PATH")
    parser.add_argument("--work_dir", type=Path, default=Path("outputs/ranking"))
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    return parser.parse_args()


def main() -> None:
    arguments = parse()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    file = arguments.output_dir / RESULTS
    report = json.loads(file.read_text()) if file.exists() else {}
    for part in arguments.parts:
        threads = torch.get_num_threads()
        machine = f"{processor_names()[0]}, {threads} threads, torch {torch.__version__}."
        report[part] = {"machine": machine, "results": measure(part, arguments)}
        write(report, arguments.output_dir)
    print((arguments.output_dir / "ranking.md").read_text())


if __name__ == "__main__":
    main()
