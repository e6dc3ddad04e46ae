"""Losses beside those of other libraries: same tensors, value, gradient, and time of a pass.

    python recipes/benchmarks/peers.py                       # pytorch-adapt, lightly and learn2learn
    python recipes/benchmarks/peers.py --only lightly --rounds 1

Each library has an environment of its own in --runs_dir, made by `venv` and pip where it is not there, with what its
losses import; torch and numpy are those of this interpreter, so that all compute by the same kernels. Libraries take
turns in fresh processes on one thread. One that cannot be installed or imported has a row with its error. Gaps are the
largest difference over the largest absolute value, in float64. Writes `peers.json` and `peers.md`; rows of other
libraries that are there are kept.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import venv
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from cells import write_report
from machine import processor_names

WORKER = Path(__file__).with_name("peers_losses.py")
OURS = "hf_transfer"
SHARED = ("torchvision==0.28.0", "torchmetrics==1.9.0", "lightning-utilities==0.15.3")
PEERS = {
    "pytorch_adapt": ("pytorch-adapt==0.0.83", "pytorch-metric-learning==2.9.0", *SHARED),
    "lightly": (
        "lightly==1.6.0",
        "pytorch-lightning==2.6.6",
        "hydra-core==1.3.8",
        "omegaconf==2.4.0",
        "antlr4-python3-runtime==4.9.3",
        *SHARED,
    ),
    "adapters": (
        "adapters==1.3.0",
        "transformers==4.57.6",  # the newest that it takes
        "tokenizers==0.22.2",
        "huggingface-hub==0.36.2",
        "datasets==4.0.0",
    ),
    "learn2learn": ("learn2learn==0.2.0",),
    "skada": ("skada==0.6.0", "skorch==1.4.0", "POT==0.9.7.post1", "tabulate==0.10.0"),
}
"""Library -> what is installed, without the dependencies that nothing here imports."""
WITHOUT_OPERATORS = (
    "import sys, types; name = 'torchvision._meta_registrations'; sys.modules[name] = types.ModuleType(name)"
)
"""Run at the start of such an interpreter: torchvision's compiled operators need another build of torch, and its
import fails without them; nothing here calls any."""
WITH_LOSSES = ("pytorch_adapt", "lightly", "learn2learn")


def checked(command: list[str], environment: dict[str, str] | None = None) -> None:
    """Run a command; what it said last where it fails."""
    finished = subprocess.run(command, capture_output=True, text=True, env=environment)
    if finished.returncode:
        lines = [line for line in finished.stderr.splitlines() if line.strip()]
        raise RuntimeError(lines[-1].strip() if lines else f"exit code {finished.returncode}")


def environment_of(library: str, runs_dir: Path) -> str:
    """The interpreter of a library's environment, which is made now unless an earlier call did."""
    folder = (runs_dir / library).resolve()
    ready, python = folder / "ready.json", str(folder / "bin" / "python")
    if ready.exists() and json.loads(ready.read_text()) == list(PEERS[library]):
        return python
    shutil.rmtree(folder, ignore_errors=True)
    venv.create(folder, with_pip=True)
    checked([python, "-m", "pip", "install", "-q", "--no-deps", *PEERS[library]])
    versions = f"python{sys.version_info.major}.{sys.version_info.minor}"
    link = folder / "lib" / versions / "site-packages" / "zz_of_the_calling_interpreter.pth"
    link.write_text(f"{sysconfig.get_path('purelib')}\n{WITHOUT_OPERATORS}\n")  # after its own: torch and numpy
    ready.write_text(json.dumps(list(PEERS[library])))
    return python


def finished_cell(
    kept: Path, library: str, worker: Path, arguments: Callable[[], Sequence[str]], runs_dir: Path
) -> dict[str, Any]:
    """What a worker found for a training by a library, or why it found nothing; kept where it did.

    Args:
        kept: the file of a finished cell, which is not run again.
        library: in its own environment if it is a peer, by this interpreter if not.
        worker: the script; it writes a JSON into its last argument.
        arguments: gives its other ones; not asked where the cell is finished.
        runs_dir: of the environments.
    """
    if kept.exists():
        return json.loads(kept.read_text())
    given = arguments()
    try:
        python = environment_of(library, runs_dir) if library in PEERS else sys.executable
        with tempfile.TemporaryDirectory() as folder:
            found = Path(folder) / "found.json"
            checked([python, str(worker), *given, str(found)], {**os.environ, "OMP_NUM_THREADS": "1"})
            made = json.loads(found.read_text())
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return {"error": str(error)}
    kept.parent.mkdir(parents=True, exist_ok=True)
    kept.write_text(json.dumps(made))
    print(f"{kept.stem}: {made}", flush=True)
    return made


def measured(library: str, python: str) -> dict[str, Any]:
    """Loss -> value, gradients and milliseconds, from a fresh process."""
    with tempfile.TemporaryDirectory() as folder:
        file = str(Path(folder) / "measured.pt")
        checked([python, str(WORKER), library, file], {**os.environ, "OMP_NUM_THREADS": "1"})
        return torch.load(file)


def gap(ours: torch.Tensor, other: torch.Tensor) -> float:
    """The largest difference over the largest absolute value of both."""
    return float((ours - other).abs().max() / torch.maximum(ours.abs().max(), other.abs().max()))


def compare(library: str, runs_dir: Path, rounds: int) -> list[dict[str, Any]]:
    """A row a loss, or one with the error."""
    try:
        python = environment_of(library, runs_dir)
        measured(library, python)
    except (RuntimeError, OSError, subprocess.SubprocessError) as error:
        return [{"library": PEERS[library][0], "error": str(error)}]
    turns = [(measured(OURS, sys.executable), measured(library, python)) for _ in range(rounds)]
    rows = []
    for name, other in turns[0][1].items():
        ours = turns[0][0][name]
        if ours["gradients"].keys() != other["gradients"].keys():
            raise RuntimeError(f"{name}: gradients of {[*ours['gradients']]} here, of {[*other['gradients']]} there.")
        gaps = [gap(gradient, other["gradients"][key]) for key, gradient in ours["gradients"].items()]
        times = [statistics.median(turn[place][name]["ms"] for turn in turns) for place in (0, 1)]
        values = [torch.tensor(found["value"], dtype=torch.float64) for found in (ours, other)]
        row = {"library": PEERS[library][0], "loss": name, "value": ours["value"], "value_gap": gap(*values)}
        ratio = statistics.median(theirs[name]["ms"] / here[name]["ms"] for here, theirs in turns)
        rows.append({**row, "gradient_gap": max(gaps), "ms": times[0], "their_ms": times[1], "ratio": ratio})
    return rows


def markdown(report: dict[str, Any]) -> str:
    """A table of all losses."""
    lines = ["# Losses beside those of other libraries", "", report["machine"], ""]
    lines += ["| library | loss | value | gap of the value | of the gradient | ms | their ms | theirs / ours |"]
    lines.append("|---|---|" + "--:|" * 6)
    for row in report["rows"]:
        if "error" in row:
            lines.append(f"| {row['library']} | not measured: {row['error'].replace('|', '/')} | | | | | | |")
            continue
        cells = (f"{row['value']:.6g}", f"{row['value_gap']:.0e}", f"{row['gradient_gap']:.0e}")
        times = (f"{row['ms']:.2f}", f"{row['their_ms']:.2f}", f"{row['ratio']:.2f}")
        lines.append("| " + " | ".join((row["library"], row["loss"], *cells, *times)) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", nargs="+", choices=WITH_LOSSES, default=WITH_LOSSES)
    parser.add_argument("--rounds", type=int, default=5, help="turns of fresh processes")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/peers"), help="where environments go")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if arguments.rounds < 1:
        parser.error(f"--rounds should be at least 1, got {arguments.rounds}.")
    file, present = arguments.output_dir / "peers.json", {PEERS[library][0] for library in arguments.only}
    earlier = json.loads(file.read_text())["rows"] if file.exists() else []
    rows = [row for row in earlier if row["library"] not in present]
    rows += [row for library in arguments.only for row in compare(library, arguments.runs_dir, arguments.rounds)]
    machine = f"{processor_names()[0]}, one thread, torch {torch.__version__}; gaps in float64, times in float32."
    report = {"machine": machine, "rows": rows}
    write_report(arguments.output_dir, "peers", report, markdown(report))


if __name__ == "__main__":
    main()
