"""What every recipe does around its run: read arguments, run, print the metrics, and say plainly what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

from accelerate import PartialState

from hf_transfer.runs.arguments import Experiment, parse_arguments


def run_recipe(run: Callable[[Experiment], dict[str, float]]) -> None:
    """Run with this process's arguments, `[CONFIG.yaml] [--key value ...]`; a mistake in them exits with one line."""
    try:
        metrics = run(parse_arguments())
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    state = PartialState()
    if state.is_main_process:
        print(json.dumps({"processes": state.num_processes, **metrics}, indent=2))
