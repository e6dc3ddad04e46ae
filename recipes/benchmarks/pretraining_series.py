"""Pre-training on series: objectives on the same unlabelled series at equal steps, and what they are worth for a task.

Series: the 270 training ones of JapaneseVowels (7 to 29 steps of 12 channels) without their labels, 500 steps of the
recipes recipes/pretraining/vowels_*.yaml. Task: which of nine speakers, 10 labels a class, 370 test series; the linear
probe and the neighbours (knn) read 200 of these by halves. Every objective has the same Flowformer.
"""

from __future__ import annotations

import time
from pathlib import Path

from cells import COMMON, logged

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments, read_yaml

RECIPES = Path(__file__).parents[1] / "pretraining"
RANDOM = "random weights"
ROWS = {
    "masked time points": "vowels_masked_steps",
    "next step": "vowels_next_step",
    "simclr": "vowels_simclr",
    RANDOM: "vowels_masked_steps",
}
"""Name -> its recipe; random weights are those after one step without a rate."""
TARGET, PROBE = "japanese_vowels", "speakers"
SCORES = ("logme", "linear_probe", "knn")


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Pre-train, probe and fine-tune."""
    settings = {**read_yaml(RECIPES / f"{ROWS[row]}.yaml"), "seed": seed, "output_dir": str(folder / "start")}
    steps = 2 if quick else 1 if row == RANDOM else settings["max_steps"]
    settings |= {"max_steps": steps, "eval_strategy": "steps", "eval_steps": max(1, steps // 3), "disable_tqdm": True}
    settings |= {"transfer_probes": {PROBE: {"dataset": TARGET, "split": "test", "max_samples": 200}}}
    settings["transfer_probes"]["scores"] = list(SCORES)
    settings |= {"learning_rate": 0.0} if row == RANDOM else {}
    started = time.process_time()
    made = run_pretraining(parse_arguments([], **settings, overwrite=True))
    seconds = time.process_time() - started
    probe = f"{PROBE}_linear_probe"
    watched = logged(made.folder, probe)[:3]
    found = {f"probe {place}/3": 100 * value for place, value in enumerate(watched, start=1)}
    found |= {"LogME": made[f"{PROBE}_logme"], "linear probe": 100 * made[probe], "knn": 100 * made[f"{PROBE}_knn"]}
    adaptation = {**COMMON, "model": str(made.folder), "task": "time-series-classification", "dataset": TARGET}
    adaptation |= {"test_split": "test", "labels_per_class": 10, "seed": seed, "max_steps": 2 if quick else 150}
    adaptation |= {"per_device_train_batch_size": 32, "per_device_eval_batch_size": 128, "learning_rate": 1e-3}
    tuned = run_adaptation(parse_arguments([], **adaptation, output_dir=str(folder / "target"), overwrite=True))
    return {**found, "fine-tuned": 100 * tuned["accuracy"], "seconds": seconds}
