"""What a step of each domain-adaptation method costs over the task loss alone, on the same two half batches.

    python recipes/benchmarks/adaptation_overhead.py                        # every method
    python recipes/benchmarks/adaptation_overhead.py --methods dann cdan    # these; others that are there are kept

A step is forward, backward and AdamW of a six-layer Flowformer of width 256 on 32 + 32 images of 16 patches, in
float32. Each method has a process of its own, in which its steps and source only's take turns; the ratio is the median
over the pairs of neighbours. Memory is the peak of the first steps over what the process holds before there is a
model. Augmentation is not timed: a method with two views gets them ready, and pays for running both.
Writes `adaptation_overhead.json` and `.md` into the output folder.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from machine import growth_mib, processor_names, resident_mib, restart_peak
from transformers import AutoModelForImageClassification
from transformers.trainer_utils import set_seed

from hf_transfer import FlowformerConfig, TransferConfig
from hf_transfer.data.images import PixelReader
from hf_transfer.domain_adaptation import OBJECTIVES
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.family_trainers import DomainAdaptationTrainer
from hf_transfer.training.transfer_model import alternates

ROWS, CLASSES, CHANNELS, SIZE = 32, 10, 3, 32
ARCHITECTURE = {
    "modality": "image",
    "image_size": SIZE,
    "patch_size": 8,
    "num_channels": CHANNELS,
    "hidden_size": 256,
    "num_hidden_layers": 6,
    "num_attention_heads": 8,
    "intermediate_size": 1024,
}
SOURCE_ONLY = "source_only"
REGRESSION = ("dd", "rsd")
METHODS = list(OBJECTIVES)
KEYWORDS: dict[str, dict[str, Any]] = {}
"""Keywords that a method cannot do without."""
LIMITED = dict.fromkeys(("dann", "cdan", "mcc", "dan", "coral"), 1.25)
"""Method -> what its step may cost at most."""
RESULTS = "adaptation_overhead.json"


def images(is_regression: bool, seed: int) -> Dataset:
    """Random pictures and labels: what is in them costs nothing."""
    generator = torch.Generator().manual_seed(seed)
    pixels = torch.randn(2 * ROWS, CHANNELS, SIZE, SIZE, generator=generator)
    labels = torch.randint(CLASSES, (2 * ROWS,), generator=generator)
    values = labels.float().tolist() if is_regression else labels.tolist()
    rows = Dataset.from_dict({"pixel_values": [one.numpy().tobytes() for one in pixels], "labels": values})
    return rows.with_transform(PixelReader(CHANNELS, SIZE, SIZE))


class Steps:
    """The training steps of one method on one batch."""

    def __init__(self, method: str, is_regression: bool, scratch: str):
        set_seed(0)
        objectives = {} if method == SOURCE_ONLY else {method: KEYWORDS.get(method, {})}
        family = AlternatingTrainer if alternates(objectives) else DomainAdaptationTrainer
        sizes = {"num_labels": 1 if is_regression else CLASSES}
        args = TransferConfig(
            scratch,
            per_device_train_batch_size=2 * ROWS,
            use_cpu=True,
            report_to=[],
            objectives=objectives,
            max_steps=100,
        )
        self.trainer = family(
            AutoModelForImageClassification.from_config(FlowformerConfig(**ARCHITECTURE, **sizes)),
            args,
            train_dataset=images(is_regression, seed=0),
            target_dataset=images(is_regression, seed=1).remove_columns("labels"),
        )
        self.trainer.create_optimizer_and_scheduler(num_training_steps=100)
        self.trainer.current_gradient_accumulation_steps = 1  # which `train` would set
        self.model = self.trainer.transfer_model.train()
        self.model.progress = 0.5
        rows = self.trainer.train_dataset
        if method == SOURCE_ONLY:  # on both halves here: a training leaves the target's out
            both = [*range(ROWS), *range(2 * ROWS, 3 * ROWS)]
            self.batch = self.trainer.data_collator([rows[row] for row in both])
        else:
            self.batch = next(iter(self.trainer.get_train_dataloader()))

    def take(self) -> float:
        """Milliseconds of one."""
        start = time.perf_counter()
        self.trainer.training_step(self.model, dict(self.batch))
        self.trainer.optimizer.step()
        self.model.zero_grad()
        self.model.after_step()
        return 1e3 * (time.perf_counter() - start)


def measure(method: str, rounds: int) -> dict[str, float]:
    """Step times of a method and of source only in turns, and the method's memory."""
    is_regression = method in REGRESSION
    with tempfile.TemporaryDirectory() as scratch:
        restart_peak()
        before = resident_mib("VmRSS")
        steps = Steps(method, is_regression, scratch)
        for _ in range(2):
            steps.take()
        peak = growth_mib(before)
        baseline = Steps(SOURCE_ONLY, is_regression, scratch)
        baseline.take()
        pairs = [(baseline.take(), steps.take()) for _ in range(rounds)]
    return {
        "step_ms": round(statistics.median(own for _, own in pairs), 1),
        "source_only_ms": round(statistics.median(base for base, _ in pairs), 1),
        "ratio": round(statistics.median(own / base for base, own in pairs), 3),
        "peak_mib": round(peak, 1),
        "rounds": rounds,
    }


def measure_apart(method: str, rounds: int) -> dict[str, Any]:
    """`measure` in a fresh process, with the threads that this one was started with."""
    command = [sys.executable, __file__, "--measure", method, "--rounds", str(rounds)]
    finished = subprocess.run(command, capture_output=True, text=True)
    if finished.returncode:
        return {"error": finished.stderr.strip().splitlines()[-1]}
    return json.loads(finished.stdout.splitlines()[-1])


def markdown(report: dict[str, Any]) -> str:
    """A row a method, the cheapest first."""
    lines = ["# A step of each domain-adaptation method over source only", "", report["machine"], ""]
    lines += ["No term can be cheaper than none: the ratios below 1 show how large the noise is.", ""]
    lines += ["| method | ms | source only, ms | time ratio | limit | memory ratio |", "|---|--:|--:|--:|--:|--:|"]
    base = report["methods"].get(SOURCE_ONLY, {}).get("peak_mib")
    measured = {name: row for name, row in report["methods"].items() if "ratio" in row}
    for name, row in sorted(measured.items(), key=lambda item: item[1]["ratio"]):
        limit = f"{LIMITED[name]:.2f}" if name in LIMITED else ""
        memory = f"{row['peak_mib'] / base:.2f}" if base else ""
        times = f"{row['step_ms']:.0f} | {row['source_only_ms']:.0f} | {row['ratio']:.2f}"
        lines.append(f"| {name} | {times} | {limit} | {memory} |")
    failed = {name: row["error"] for name, row in report["methods"].items() if "error" in row}
    lines += [f"\n{name}: {error}" for name, error in failed.items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--methods", nargs="+", choices=[SOURCE_ONLY, *METHODS], default=[SOURCE_ONLY, *METHODS])
    parser.add_argument("--rounds", type=int, default=10, help="pairs of steps")
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--measure", choices=[SOURCE_ONLY, *METHODS], help="print the cost of one method, and stop")
    arguments = parser.parse_args()
    if arguments.measure:
        print(json.dumps(measure(arguments.measure, arguments.rounds)))
        return
    file = arguments.output_dir / RESULTS
    known = json.loads(file.read_text())["methods"] if file.exists() else {}
    for method in arguments.methods:
        known[method] = measure_apart(method, arguments.rounds)
        print(method, known[method], flush=True)
    setting = f"six layers of width 256, {ROWS} + {ROWS} images of 16 patches"
    threads = f"{torch.get_num_threads()} threads" if torch.get_num_threads() > 1 else "one thread"
    machine = f"{processor_names()[0]}, {threads}, torch {torch.__version__}, float32; {setting}."
    report = {"machine": machine, "methods": {name: known[name] for name in [SOURCE_ONLY, *METHODS] if name in known}}
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(report, indent=2) + "\n")
    (arguments.output_dir / "adaptation_overhead.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
