"""Time and memory of a training step of this checkout beside another one's, in turns on one machine.

    git worktree add ../before COMMIT
    python recipes/benchmarks/step_costs.py --before ../before

A step is what the Trainer runs: forward, backward and AdamW of a small ViT on 64 images of 16 patches in float32. Each
turn is a process of its own per checkout, before and after in alternating order; printed are the medians over the
turns, and the ratio is the median of the ratios of neighbouring turns. Nothing is written.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

ROWS, CLASSES, SIZE, PATCH = 32, 10, 32, 8
CASES: dict[str, tuple[str, dict[str, Any]]] = {
    "fine-tuning": ("task", {}),
    "LwF": ("task", {"lwf": {}}),
    "source only": ("domain", {}),
    "DANN": ("domain", {"dann": {}}),
    "CDAN + MCC + JAN": ("domain", {"cdan": {}, "mcc": {}, "jan": {}}),
}


def trainer_of(case: str, scratch: str) -> Any:
    """The trainer of one case, with the checkout that is first on the path."""
    import torch
    from datasets import Dataset
    from transformers import ViTConfig, ViTForImageClassification
    from transformers.trainer_utils import set_seed

    from hf_transfer import DomainAdaptationTrainer, TaskAdaptationTrainer, TransferConfig

    def images(seed: int) -> Dataset:
        generator = torch.Generator().manual_seed(seed)
        pixels = torch.randn(2 * ROWS, 3, SIZE, SIZE, generator=generator)
        labels = torch.arange(2 * ROWS) % CLASSES
        return Dataset.from_dict({"pixel_values": pixels.numpy(), "labels": labels.numpy()}).with_format("torch")

    set_seed(0)
    family, objectives = CASES[case]
    sizes = {"hidden_size": 192, "num_hidden_layers": 4, "num_attention_heads": 3, "intermediate_size": 768}
    model = ViTForImageClassification(ViTConfig(image_size=SIZE, patch_size=PATCH, num_labels=CLASSES, **sizes))
    args = TransferConfig(
        scratch,
        per_device_train_batch_size=2 * ROWS,
        use_cpu=True,
        report_to=[],
        objectives=objectives,
        max_steps=100,
    )
    if family == "task":
        return TaskAdaptationTrainer(model, args, train_dataset=images(0))
    target = images(1).remove_columns("labels")
    return DomainAdaptationTrainer(model, args, train_dataset=images(0), target_dataset=target)


def measure(case: str, seconds: float) -> dict[str, float]:
    """Milliseconds of a step, median over `seconds` of steps, and MiB that the run added at its peak."""
    import torch
    from machine import growth_mib, resident_mib, restart_peak

    torch.set_num_threads(1)
    restart_peak()
    before = resident_mib("VmRSS")
    with tempfile.TemporaryDirectory() as scratch:
        trainer = trainer_of(case, scratch)
        trainer.create_optimizer_and_scheduler(num_training_steps=100)
        trainer.current_gradient_accumulation_steps = 1  # which `train` would set
        model = trainer.transfer_model.train()
        model.progress = 0.5
        batch = next(iter(trainer.get_train_dataloader()))
        for _ in range(2):
            step(trainer, model, batch)  # the first ones allocate
        times, end = [], time.perf_counter() + seconds
        while not times or time.perf_counter() < end:
            times.append(step(trainer, model, batch))
        return {"ms": statistics.median(times), "mib": growth_mib(before)}


def step(trainer: Any, model: Any, batch: dict[str, Any]) -> float:
    """Milliseconds of processor time of one training step."""
    start = time.process_time()
    trainer.training_step(model, dict(batch))
    trainer.optimizer.step()
    model.zero_grad()
    model.after_step()
    return 1e3 * (time.process_time() - start)


def in_checkout(folder: Path, case: str, seconds: float) -> dict[str, float]:
    command = [sys.executable, __file__, "--case", case, "--seconds", str(seconds)]
    environment = {**os.environ, "PYTHONPATH": str(folder.resolve())}
    done = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--before", type=Path, help="The other checkout.")
    parser.add_argument("--turns", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=6.0, help="Of steps in each turn.")
    parser.add_argument("--case", choices=list(CASES), help="Measure this one alone, in this process.")
    args = parser.parse_args()
    if args.case:
        print(json.dumps(measure(args.case, args.seconds)))
        return
    if args.before is None or not (args.before / "hf_transfer").is_dir():
        parser.error("`--before` should be the folder of another checkout.")
    here = Path(__file__).parents[2]
    print(f"{'case':<18} {'ms before':>10} {'ms now':>8} {'ratio':>14} {'MiB before':>11} {'MiB now':>8}")
    for case in CASES:
        pairs = []
        for turn in range(args.turns):
            folders = [args.before, here] if turn % 2 == 0 else [here, args.before]
            found = {folder: in_checkout(folder, case, args.seconds) for folder in folders}
            pairs.append((found[args.before], found[here]))
        ratios = [now["ms"] / before["ms"] for before, now in pairs]
        ms, mib = ([statistics.median(one[key] for one in side) for side in zip(*pairs)] for key in ("ms", "mib"))
        spread = f"{statistics.median(ratios):.3f} ({min(ratios):.2f}-{max(ratios):.2f})"
        print(f"{case:<18} {ms[0]:>10.1f} {ms[1]:>8.1f} {spread:>14} {mib[0]:>11.0f} {mib[1]:>8.0f}")


if __name__ == "__main__":
    main()
