"""Seconds and memory of a step of each task-adaptation objective beside plain fine-tuning, all in one run.

    python recipes/benchmarks/task_adaptation_overhead.py
    python recipes/benchmarks/task_adaptation_overhead.py --seconds 20 --hidden_size 384

A ViT classifier on random images in float32: the numbers depend on sizes alone. Every round runs one training step of
each objective in turn, so that a busy machine slows all of them alike; medians are reported, and the ratio is the
median of the ratios of the rounds. Memory is what building and two steps add to a fresh process at their peak. Writes
`task_adaptation_overhead.json` and `.md` into the output folder.

To expect: L2-SP at most 1.15, BSS 1.3 and LwF 1.6 times plain fine-tuning; 1.05, 1.0 and 1.4 on one busy core.
"""

import argparse
import json
import multiprocessing
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import growth_mib, processor_names, resident_mib, restart_peak
from torch import Tensor, nn
from transformers import ViTConfig, ViTForImageClassification

from hf_transfer.training.transfer_model import TransferModel, objective_class

PLAIN = "fine_tuning"
KEYWORDS = {
    PLAIN: None,
    "l2_sp": {},
    "bss": {},
    "lwf": {},
    "ewc": {"samples": 4},
    "delta": {"samples": 4},
    "co_tuning": {"source_head": ...},
    "bi_tuning": {},
}
TARGETS = {"l2_sp": 1.15, "bss": 1.3, "lwf": 1.6}
CLASSES, IMAGE_SIZE, PATCH = 10, 32, 4


def make_batch(args: argparse.Namespace, views: bool) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    shape = (args.batch_size, 3, IMAGE_SIZE, IMAGE_SIZE)
    batch = {"pixel_values": torch.randn(shape, generator=generator)}
    if views:
        batch["view_pixel_values"] = torch.randn(shape, generator=generator)
    # every class is there, as Co-Tuning asks
    return {**batch, "labels": torch.arange(args.batch_size) % CLASSES}


def make_step(name: str, args: argparse.Namespace) -> Callable[[], None]:
    """One whole training step of a model with this objective."""
    torch.manual_seed(0)
    config = ViTConfig(
        hidden_size=args.hidden_size,
        num_hidden_layers=args.layers,
        num_attention_heads=args.hidden_size // 64,
        intermediate_size=4 * args.hidden_size,
        image_size=IMAGE_SIZE,
        patch_size=PATCH,
        num_labels=CLASSES,
    )
    model = ViTForImageClassification(config)
    objectives = {}
    if name != PLAIN:
        head = nn.Linear(args.hidden_size, 1000)
        keywords = {key: head if value is ... else value for key, value in KEYWORDS[name].items()}
        objectives[name] = objective_class(name)(**keywords)
    transfer = TransferModel(model, objectives).train()
    batch = make_batch(args, views="views" in transfer.needs)
    for objective in transfer.objectives.values():
        objective.prepare(model, [batch])
    optimizer = torch.optim.AdamW([p for p in transfer.parameters() if p.requires_grad], lr=1e-4)

    def step() -> None:
        transfer(**batch).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
        transfer.after_step()

    return step


def added_mib(name: str, args: argparse.Namespace, answer) -> None:
    """Puts the MiB that building and two steps add at their peak, in this process."""
    before = resident_mib("VmRSS")
    restart_peak()
    step = make_step(name, args)
    step(), step()
    answer.put(growth_mib(before))


def measure_memory(args: argparse.Namespace) -> dict[str, float]:
    """MiB by objective, each in a process of its own that begins with everything imported and nothing built."""
    for name in KEYWORDS.keys() - {PLAIN}:
        objective_class(name)
    context = multiprocessing.get_context("fork")
    peaks = {}
    for name in KEYWORDS:
        answer = context.SimpleQueue()
        process = context.Process(target=added_mib, args=(name, args, answer))
        process.start()
        peaks[name] = answer.get()
        process.join()
    return peaks


def measure_time(args: argparse.Namespace) -> tuple[dict[str, list[float]], int]:
    """Seconds of every step by objective, and the number of rounds."""
    steps = {name: make_step(name, args) for name in KEYWORDS}
    for step in steps.values():
        step(), step()
    times: dict[str, list[float]] = {name: [] for name in steps}
    start = time.perf_counter()
    while len(times[PLAIN]) < 5 or time.perf_counter() - start < args.seconds:
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            times[name].append(time.perf_counter() - began)
    return times, len(times[PLAIN])


def to_markdown(report: dict) -> str:
    lines = [
        "# What a task-adaptation objective costs",
        "",
        f"{report['model']}, batch {report['batch_size']}, float32, {report['threads']} thread(s) of "
        f"{report['processor']}, {report['rounds']} rounds, medians.",
        "",
        "| objective | ms a step | times plain | target | peak MiB | times plain |",
        "|---|---|---|---|---|---|",
    ]
    for row in report["rows"]:
        target = "" if row["target"] is None else f"{row['target']:.2f}"
        lines.append(
            f"| {row['objective']} | {row['step_ms']:.1f} | {row['time_ratio']:.2f} | {target} | "
            f"{row['peak_mib']:.0f} | {row['memory_ratio']:.2f} |"
        )
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=20.0, help="of timed rounds")
    parser.add_argument("--hidden_size", type=int, default=128)
    parser.add_argument("--layers", type=int, default=4)
    parser.add_argument("--batch_size", type=int, default=16)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    args = parser.parse_args()
    peaks = measure_memory(args)
    times, rounds = measure_time(args)
    rows = []
    for name, seconds in times.items():
        ratios = [mine / plain for mine, plain in zip(seconds, times[PLAIN], strict=True)]
        rows.append(
            {
                "objective": name,
                "step_ms": round(1e3 * statistics.median(seconds), 3),
                "time_ratio": round(statistics.median(ratios), 3),
                "target": TARGETS.get(name),
                "peak_mib": round(peaks[name], 1),
                "memory_ratio": round(peaks[name] / peaks[PLAIN], 3),
            }
        )
    tokens = (IMAGE_SIZE // PATCH) ** 2 + 1
    report = {
        "model": f"ViT of width {args.hidden_size}, {args.layers} layers, {tokens} tokens",
        "batch_size": args.batch_size,
        "threads": torch.get_num_threads(),
        "processor": processor_names()[0],
        "rounds": rounds,
        "rows": rows,
    }
    args.output_dir.mkdir(parents=True, exist_ok=True)
    text = to_markdown(report)
    (args.output_dir / "task_adaptation_overhead.json").write_text(json.dumps(report, indent=2) + "\n")
    (args.output_dir / "task_adaptation_overhead.md").write_text(text)
    print(text)


if __name__ == "__main__":
    main()
