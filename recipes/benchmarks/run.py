"""Every benchmark of this folder by one command, each in a process of its own, with a journal of what was run.

    python recipes/benchmarks/run.py --suite quick                     # the smallest form of each: does all of it run?
    python recipes/benchmarks/run.py --suite full                      # what the committed results are made by
    python recipes/benchmarks/run.py --suite full --only flow_packing ranking
    python recipes/benchmarks/run.py --list                            # what there is, and what cannot run here
    python recipes/benchmarks/run.py --suite quick --dry-run           # print the commands

A script that finished is not run again by the same command (`--again` does); one that failed is told at the end, the
others go on, and the next call tries it again. Trainings, logs and the journal `benchmarks.json` go into --runs_dir.
`full` writes into recipes/benchmarks/results, `quick` into a folder beside its runs. `commands.json` there keeps the
command, machine and versions of every finished script, and its README.md shows them between two markers.
"""

from __future__ import annotations

import argparse
import importlib.metadata
import json
import os
import platform
import re
import shlex
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import torch
from machine import processor_names
from suites import BENCHMARKS, SUITES

HERE = Path(__file__).parent
START, END = "<!-- commands: begin -->", "<!-- commands: end -->"
COLUMNS = ("results", "command", "seeds", "± and bars", "machine", "versions", "minutes", "date")
INTRODUCTION = (
    "One command a table; `run.py --suite full` of the folder above runs them all. A row without minutes was made by "
    "an earlier call of its script: its machine is what the results say, its date that of their commit."
)
Entries = dict[str, dict[str, Any]]
"""Script -> command, exit code, seconds, machine, versions, date."""


def arguments_of(name: str, suite: str, runs_dir: Path, output_dir: Path) -> list[str]:
    """The options of a script in a suite, folders included."""
    benchmark = BENCHMARKS[name]
    own = shlex.split(benchmark.options(suite))
    folders = [part.format(runs=runs_dir) for part in shlex.split(benchmark.folders)]
    return [*own, *folders, "--output_dir", str(output_dir)]


def told(name: str, options: Sequence[str]) -> str:
    """The command as one types it in the root of the checkout."""
    threads = BENCHMARKS[name].threads
    return shlex.join([f"OMP_NUM_THREADS={threads}", "python", f"recipes/benchmarks/{name}.py", *options])


def machine() -> str:
    """Processor, cores and accelerator."""
    cores = processor_names()
    gpu = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    return f"{cores[0]}, {len(cores)} cores, {gpu}"


def versions() -> dict[str, str]:
    """Of what the figures depend on most."""
    packages = ("torch", "transformers", "peft", "datasets")
    return {"python": platform.python_version(), **{name: importlib.metadata.version(name) for name in packages}}


def read_json(file: Path) -> dict[str, Any]:
    return json.loads(file.read_text()) if file.exists() else {}


def write_whole(file: Path, text: str) -> None:
    """Replace a file in one step, so that an interrupted call leaves the old one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    staged = file.with_name(file.name + ".part")
    staged.write_text(text)
    os.replace(staged, file)


def record(file: Path, name: str, entry: dict[str, Any]) -> None:
    """Put one entry into a JSON of entries."""
    write_whole(file, json.dumps({**read_json(file), name: entry}, indent=1) + "\n")


def run_script(name: str, options: Sequence[str], log: Path) -> dict[str, Any]:
    """Run one script to its end, its output into the log; the entry of the journal."""
    log.parent.mkdir(parents=True, exist_ok=True)
    environment = {**os.environ, "OMP_NUM_THREADS": str(BENCHMARKS[name].threads)}
    started = time.perf_counter()
    with log.open("w") as written:
        command = [sys.executable, str(HERE / f"{name}.py"), *options]
        code = subprocess.run(command, stdout=written, stderr=subprocess.STDOUT, env=environment).returncode
    return {
        "command": told(name, options),
        "exit_code": code,
        "seconds": round(time.perf_counter() - started, 1),
        "machine": machine(),
        "versions": versions(),
        "date": datetime.now(UTC).date().isoformat(),
    }


def last_line(log: Path) -> str:
    """What a script that failed said last."""
    lines = [line.strip() for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1] if lines else "it said nothing."


def facts_of_results(name: str, folder: Path) -> dict[str, Any] | None:
    """Machine and date of results that a script wrote by itself; None where there are none."""
    file = folder / f"{name}.json"
    if not file.exists():
        return None
    report = read_json(file)
    parts = [report, *(part for part in report.values() if isinstance(part, dict))]
    known = [part[key] for part in parts for key in ("machine", "processor") if isinstance(part.get(key), str)]
    git = ["git", "log", "-1", "--format=%cs", "--", file.name]
    date = subprocess.run(git, cwd=folder, capture_output=True, text=True).stdout.strip()
    return {"machine": known[0] if known else "", "date": date}


def table(suite: str, folder: Path) -> str:
    """Rows of Markdown: every benchmark whose results lie in the folder."""
    entries: Entries = read_json(folder / "commands.json")
    lines = [f"| {' | '.join(COLUMNS)} |", "|---" * len(COLUMNS) + "|"]
    for name, benchmark in BENCHMARKS.items():
        entry = entries.get(name)
        facts = entry or facts_of_results(name, folder)
        if facts is None:
            continue
        options = benchmark.options(suite)
        seeds = re.search(r"--seeds((?: \d+)+)", options)
        page = f"[{name}.md]({name}.md)" if (folder / f"{name}.md").exists() else name
        cells = (
            page,
            f"`{told(name, shlex.split(options))}`",
            (seeds[1].strip() if entry else "as its page says") if seeds else "none",
            benchmark.spread,
            facts["machine"],
            ", ".join(f"{package} {version}" for package, version in facts.get("versions", {}).items()),
            f"{entry['seconds'] / 60:.1f}" if entry else "",
            facts["date"],
        )
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def write_table(suite: str, folder: Path) -> None:
    """Put the table between the markers of the folder's README.md, which is made where there is none."""
    file = folder / "README.md"
    text = file.read_text() if file.exists() else f"# Benchmarks, suite {suite}\n\n{START}\n{END}\n"
    if text.count(START) != 1 or text.count(END) != 1 or text.index(START) > text.index(END):
        raise ValueError(f"{file} should have the lines {START} and {END} once, in this order: add them.")
    before, after = text.split(START)[0], text.split(END)[1]
    write_whole(file, f"{before}{START}\n{INTRODUCTION}\n\n{table(suite, folder)}\n{END}{after}")


def run_suite(arguments: argparse.Namespace, names: Sequence[str]) -> dict[str, str]:
    """Run the scripts one after the other; those that failed with what they said."""
    journal, failed = arguments.runs_dir / "benchmarks.json", {}
    for name in names:
        options = arguments_of(name, arguments.suite, arguments.runs_dir, arguments.output_dir)
        if hindrance := BENCHMARKS[name].hindrance():
            print(f"{name}: skipped, {hindrance}", flush=True)
            continue
        if arguments.dry_run:
            print(told(name, options))
            continue
        earlier = read_json(journal).get(name, {})
        if earlier.get("exit_code") == 0 and earlier["command"] == told(name, options) and not arguments.again:
            print(f"{name}: finished on {earlier['date']} (--again runs it again)", flush=True)
            continue
        log = arguments.runs_dir / f"{name}.log"
        print(f"{name}: {told(name, options)} > {log}", flush=True)
        entry = run_script(name, options, log)
        record(journal, name, entry)
        if entry["exit_code"]:
            failed[name] = f"exit code {entry['exit_code']}, {last_line(log)} (all of it: {log})"
            print(f"{name}: FAILED after {entry['seconds']} s, {failed[name]}", flush=True)
            continue
        facts = ("seconds", "machine", "versions", "date")
        record(arguments.output_dir / "commands.json", name, {fact: entry[fact] for fact in facts})
        write_table(arguments.suite, arguments.output_dir)
        print(f"{name}: finished in {entry['seconds']} s", flush=True)
    return failed


def listing(benchmarks: Mapping[str, Any]) -> str:
    """A line a benchmark."""
    lines = []
    for name, benchmark in benchmarks.items():
        hindrance = benchmark.hindrance()
        lines.append(f"{name:26}{benchmark.says}" + (f" (not run here: {hindrance})" if hindrance else ""))
    return "\n".join(lines)


def parse(argv: Sequence[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--suite", choices=SUITES, default="quick")
    parser.add_argument("--only", nargs="+", choices=list(BENCHMARKS), default=list(BENCHMARKS), metavar="NAME")
    parser.add_argument("--again", action="store_true", help="run what is finished again")
    parser.add_argument("--list", action="store_true", help="print the benchmarks and stop")
    parser.add_argument("--dry-run", action="store_true", help="print the commands and stop")
    parser.add_argument("--table", action="store_true", help="write the table of commands and stop")
    parser.add_argument("--runs_dir", type=Path, help="default: outputs/quick_benchmarks, of the full suite outputs")
    parser.add_argument("--output_dir", type=Path, help="default: RUNS_DIR/results, of the full suite results/")
    arguments = parser.parse_args(argv)
    full = arguments.suite == "full"
    arguments.runs_dir = arguments.runs_dir or Path("outputs" if full else "outputs/quick_benchmarks")
    arguments.output_dir = arguments.output_dir or (
        Path(os.path.relpath(HERE / "results")) if full else arguments.runs_dir / "results"
    )
    return arguments


def main(argv: Sequence[str] | None = None) -> int:
    arguments = parse(argv)
    if arguments.list:
        print(listing(BENCHMARKS))
        return 0
    if arguments.table:
        write_table(arguments.suite, arguments.output_dir)
        return 0
    failed = run_suite(arguments, [name for name in BENCHMARKS if name in arguments.only])
    if failed:
        print(f"\n{len(failed)} of {len(arguments.only)} failed; the same command tries them again:")
        print("\n".join(f"  {name}: {reason}" for name, reason in failed.items()))
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
