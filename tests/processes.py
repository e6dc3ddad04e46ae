"""Modules of the tests that are run in processes of their own."""

import os
import subprocess
import sys
from pathlib import Path

TWO = ("-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2")
"""What stands before the module for two processes on this machine."""


def run_module(module: str, *words: str, launcher: tuple[str, ...] = (), **environment: str) -> None:
    """Run `python LAUNCHER -m MODULE WORDS` with one thread; fails with what it wrote where it fails."""
    done = subprocess.run(
        [sys.executable, *launcher, "-m", module, *words],
        cwd=Path(__file__).parents[1],
        env={**os.environ, "OMP_NUM_THREADS": "1", **environment},
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-5000:]
