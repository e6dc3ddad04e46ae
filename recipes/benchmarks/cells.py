"""What the benchmarks share that train many models: workers, and how figures of several seeds are written."""

from __future__ import annotations

import multiprocessing
import statistics
from collections.abc import Callable, Hashable, Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any, TypeVar

import torch
from datasets import disable_progress_bars

Cell = TypeVar("Cell", bound=Hashable)


def one_thread() -> None:
    """What a worker begins with."""
    torch.set_num_threads(1)
    disable_progress_bars()


def train_all(train: Callable[..., Any], cells: Iterable[Cell], workers: int, *arguments: Any) -> dict[Cell, Any]:
    """`train(cell, *arguments)` of every cell; each worker is a process that imports once and trains many."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(workers, context, initializer=one_thread) as pool:
        waiting = {cell: pool.submit(train, cell, *arguments) for cell in cells}
        return {cell: future.result() for cell, future in waiting.items()}


def mean_and_deviation(values: Sequence[float], digits: int = 1) -> str:
    """ "91.2 ± 0.4", the standard deviation over seeds where there are several."""
    deviation = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
    return f"{statistics.mean(values):.{digits}f}{deviation}"
