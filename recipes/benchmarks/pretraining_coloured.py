"""ColoredMNIST as DomainBed defines it, on MNIST-5k: ERM and IRM under its three rules of choosing.

Environments +90 %, +80 % and -90 %: how far the colour agrees with the label, which is wrong in a quarter of the rows.
Each is the test once. A candidate is a rate (ERM) or a weight of the penalty (IRM). It is chosen by held-out rows of
the training environments (training domain), by each training environment left out in turn (leave one out), or by the
test environment itself (oracle).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from cells import COMMON

from hf_transfer.data.bundled import coloured_mnist
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation

FLIPS = {"+90%": 0.1, "+80%": 0.2, "-90%": 0.9}
CANDIDATES: dict[str, list[dict[str, Any]]] = {
    "erm": [{"learning_rate": 1e-3}, {"learning_rate": 3e-3}],
    "irm": [{"objectives": {"irm": {"weight": weight, "starts_at": 0.3}}} for weight in (10.0, 300.0)],
}
ROWS = list(CANDIDATES)
STEPS, HELD_OUT = 200, 300
RULES = ("training domain", "leave one out", "oracle")
PUBLISHED = {"erm": (51.5, 36.7, 57.8), "irm": (52.0, 40.3, 67.7)}
"""Averages of DomainBed in the order of RULES, over 70,000 digits and 20 candidates a trial."""
LENET = {"model_type": "lenet", "image_size": 16, "num_channels": 3, "channels": [10, 20], "hidden_size": 64}


def trained(candidate: dict, train: Sequence[str], test: str, seed: int, folder: Path, quick: bool) -> Any:
    """Accuracies in % on held-out rows of the training environments, and on the test environment."""
    splits = coloured_mnist([FLIPS[name] for name in train], FLIPS[test], seed=seed)
    rows = splits["train"].train_test_split(HELD_OUT, seed=seed)
    for name, part in (("train", rows["train"]), ("held_out", rows["test"]), ("test", splits["test"])):
        part.save_to_disk(folder / name)
    settings: dict[str, Any] = {**COMMON, "dataset": str(folder / "train"), "task": "image-classification"}
    settings |= {"architecture": LENET, "max_steps": 2 if quick else STEPS, "per_device_train_batch_size": 256}
    settings |= {"learning_rate": 3e-3, "per_device_eval_batch_size": 500, "seed": seed, "logging_steps": 100}
    settings |= {"lr_scheduler_type": "constant", **candidate, "test_dataset": str(folder / "held_out")}
    if len(train) == 1:  # nothing is to be invariant over
        settings.pop("objectives", None)
    made = run_adaptation(parse_arguments([], **settings, output_dir=str(folder / "run"), overwrite=True))
    tested = run_evaluation(str(made.folder), str(folder / "test"), batch_size=500)
    return 100 * made["accuracy"], 100 * tested["accuracy"]


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """The test accuracy of the candidate that each rule chooses, for each test environment and on average."""
    found, started = {}, time.process_time()
    chosen: dict[str, list[float]] = {rule: [] for rule in RULES}
    for test in FLIPS:
        others = [name for name in FLIPS if name != test]
        scores: dict[str, list[tuple[float, float]]] = {rule: [] for rule in RULES}
        for candidate in CANDIDATES[row]:
            held_out, tested = trained(candidate, others, test, seed, folder, quick)
            left = [trained(candidate, [one], other, seed, folder, quick)[1] for one, other in (others, others[::-1])]
            for rule, score in zip(RULES, (held_out, statistics.mean(left), tested)):
                scores[rule].append((score, tested))
        for rule in RULES:
            chosen[rule].append(max(scores[rule])[1])
            found[f"{rule}, test {test}"] = chosen[rule][-1]
    averages = {f"{rule}, average": statistics.mean(values) for rule, values in chosen.items()}
    return {**averages, **found, "seconds": time.process_time() - started}
