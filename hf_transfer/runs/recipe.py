"""What every recipe does around its run: read arguments, run, print the metrics, and say plainly what is wrong."""

from __future__ import annotations

import json
from collections.abc import Callable

from accelerate import PartialState

from hf_transfer.runs.arguments import Experiment, parse_arguments
from hf_transfer.runs.report import tell_interruption


def run_recipe(run: Callable[[Experiment], dict[str, float]]) -> None:
    """Run with this process's arguments, `[CONFIG.yaml] [--key value ...]`; a mistake in them exits with one line, and
    so does Ctrl-C, which says how to go on."""
    experiment = None
    try:
        experiment = parse_arguments()
        metrics = run(experiment)
    except KeyboardInterrupt:
        if experiment is not None and PartialState().is_main_process:
            tell_interruption(experiment.config.output_dir)  # the options of `accelerate launch` are not known here
        raise SystemExit(130) from None
    except (ValueError, TypeError, OSError, FloatingPointError) as error:
        raise SystemExit(f"{type(error).__name__}: {' '.join(str(error).split())}") from error
    state = PartialState()
    if state.is_main_process:
        print(json.dumps({"processes": state.num_processes, **metrics}, indent=2))
