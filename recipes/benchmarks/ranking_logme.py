"""Part (a) of the ranking benchmark: LogME of streamed features beside the algorithm as its authors released it.

    python ranking_logme.py FORM ROWS SIZE CLASSES    # a worker: every line on standard input is one timed run

Each form has a process of its own, for the thread pools of two BLAS libraries in one process would wait for each
other; both make the same features, hold them in memory in float32, and run in turn.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator

import torch
from machine import resident_mib, restart_peak
from torch import Tensor

from hf_transfer.ranking import LogME

SIZES = ((10_000, 512, 10), (50_000, 768, 100), (20_000, 2048, 200))
STREAM = (1_000_000, 768, 100)
BATCH = 256
PAUSE = 0.5


def make_batches(rows: int, size: int, classes: int, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Features that know something of the label, correlated and cut at zero as those of networks are."""
    generator = torch.Generator().manual_seed(0)
    centres = torch.randn(classes, size, generator=generator) * 0.7
    mix = torch.randn(size, size, generator=generator) / size**0.5
    for start in range(0, rows, batch):
        labels = torch.randint(classes, (min(batch, rows - start),), generator=generator)
        noise = torch.randn(len(labels), size, generator=generator)
        yield torch.relu((centres[labels] + noise) @ mix), labels


def streamed(features: Tensor, labels: Tensor, shards: int) -> float:
    """LogME in batches; one shard gives the value alone, several its standard error too."""
    score = LogME(shards=shards)
    for some, known in zip(features.split(BATCH), labels.split(BATCH)):
        score.update(some, known)
    return score.compute().value


def released(features: Tensor, labels: Tensor) -> float:
    # numba is needed here alone
    from released_logme import released_logme

    return released_logme(features.numpy(), labels.numpy())


FORMS: dict[str, Callable[[Tensor, Tensor], float]] = {
    "released": released,
    "ours": lambda features, labels: streamed(features, labels, 1),
    "ours, with standard error": lambda features, labels: streamed(features, labels, 10),
}


def work(form: str, rows: int, size: int, classes: int) -> None:
    """Time one form once for each line on standard input."""
    features, labels = (torch.cat(parts) for parts in zip(*make_batches(rows, size, classes, 2000)))
    FORMS[form](features, labels)
    print("ready", flush=True)
    for _ in sys.stdin:
        start = time.perf_counter()
        value = FORMS[form](features, labels)
        print(json.dumps({"seconds": time.perf_counter() - start, "value": value}), flush=True)


def compare(rows: int, size: int, classes: int, rounds: int) -> dict:
    """Median seconds and the value of every form, in turn and each warmed up, and how many times faster ours is."""
    command = [sys.executable, __file__]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE, "text": True}
    workers = {}
    for form in FORMS:
        workers[form] = subprocess.Popen([*command, form, str(rows), str(size), str(classes)], **pipes)
        workers[form].stdout.readline()
    runs: dict[str, list[dict]] = {form: [] for form in FORMS}
    for _ in range(rounds):
        for form, worker in workers.items():
            # The threads of the run before keep a core busy for a moment after their last work.
            time.sleep(PAUSE)
            print(file=worker.stdin, flush=True)
            runs[form].append(json.loads(worker.stdout.readline()))
    for worker in workers.values():
        worker.communicate()
    seconds = {form: statistics.median(run["seconds"] for run in found) for form, found in runs.items()}
    values = {form: found[0]["value"] for form, found in runs.items()}
    return {
        "rows": rows,
        "size": size,
        "classes": classes,
        "rounds": rounds,
        "seconds": {form: round(value, 4) for form, value in seconds.items()},
        "value": values["ours"],
        "difference": abs(values["ours"] - values["released"]),
        "times_faster": {form: round(seconds["released"] / seconds[form], 2) for form in FORMS if form != "released"},
    }


def stream() -> dict:
    """A million rows made and forgotten batch by batch: seconds, and the peak memory of the whole process."""
    rows, size, classes = STREAM
    score, seconds = LogME(), 0.0
    restart_peak()
    for features, labels in make_batches(rows, size, classes, 1000):
        start = time.perf_counter()
        score.update(features, labels)
        seconds += time.perf_counter() - start
    start = time.perf_counter()
    result = score.compute()
    seconds += time.perf_counter() - start
    facts = {"rows": rows, "size": size, "classes": classes, "seconds": round(seconds, 2)}
    return {**facts, "peak_mib": round(resident_mib("VmHWM"), 1), "value": result.value}


def measure_logme(rounds: int) -> dict:
    """Everything of part (a); the stream in a fresh process."""
    sizes = []
    for size in SIZES:
        sizes.append(compare(*size, rounds))
        print(sizes[-1], flush=True)
    output = subprocess.run([sys.executable, __file__, "stream"], check=True, capture_output=True, text=True).stdout
    print(output, flush=True)
    return {"sizes": sizes, "stream": json.loads(output)}


def logme_markdown(found: dict) -> list[str]:
    """Lines of Markdown: a row a size, then the stream."""
    lines = [
        "| rows x size, classes | released, s | ours, s | with standard error, s | times faster | with error "
        "| difference of the values |",
        "|---|--:|--:|--:|--:|--:|--:|",
    ]
    for row in found["sizes"]:
        name = f"{row['rows']:,} x {row['size']}, {row['classes']}"
        seconds = " | ".join(f"{row['seconds'][form]:.3f}" for form in FORMS)
        ratios = " | ".join(f"{value:.1f}" for value in row["times_faster"].values())
        lines.append(f"| {name} | {seconds} | {ratios} | {row['difference']:.0e} |")
    one = found["stream"]
    lines += [
        "",
        f"Streamed {one['rows']:,} x {one['size']} with {one['classes']} classes and standard error: "
        f"{one['seconds']:.0f} s, {one['peak_mib']:.0f} MiB at the peak of the whole process.",
    ]
    return lines


if __name__ == "__main__":
    if sys.argv[1] == "stream":
        print(json.dumps(stream()))
    else:
        work(sys.argv[1], *map(int, sys.argv[2:]))
