"""What a lifecycle shows while it runs: a line a piece; everything that a training prints goes to a log file."""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from accelerate import PartialState
from rich.console import Console
from rich.markup import escape
from rich.progress import Progress as Bars
from rich.progress import SpinnerColumn, TextColumn, TimeElapsedColumn

LOG = "lifecycle.log"
SHOWN_CHANGES = 4


class Progress:
    """Lines on the error stream of the main process, and the log.

    Args:
        folder: of the lifecycle.
        quiet: show nothing.
    """

    def __init__(self, folder: Path, quiet: bool = False):
        self.log = Path(folder) / LOG
        self.console = Console(
            file=sys.stderr, highlight=False, quiet=quiet or not PartialState().is_main_process, soft_wrap=True
        )
        self.done_before: list[str] = []
        self.done_now: list[str] = []

    def say(self, line: str) -> None:
        """One line for the user."""
        self.console.print(line, markup=False)

    def found(self, piece: str) -> None:
        """A piece was done before."""
        self.done_before.append(piece)

    @contextlib.contextmanager
    def doing(self, piece: str, changes: Sequence[str] = ()) -> Iterator[None]:
        """A piece that is being done; why again, where it was done before with other settings."""
        if changes:
            more = f" and {len(changes) - SHOWN_CHANGES} more" if len(changes) > SHOWN_CHANGES else ""
            self.say(f"  {piece}: again, as {', '.join(changes[:SHOWN_CHANGES])}{more}")
        started = time.perf_counter()
        with self.showing(piece), self.quiet():
            yield
        self.done_now.append(piece)
        self.say(f"  {piece}: {time.perf_counter() - started:.1f} s")

    @contextlib.contextmanager
    def showing(self, piece: str) -> Iterator[None]:
        """The piece with the time that it takes, on a terminal."""
        columns = (SpinnerColumn(), TextColumn("{task.description}"), TimeElapsedColumn())
        is_shown = self.console.is_terminal and not self.console.quiet
        with Bars(*columns, console=self.console, transient=True, disable=not is_shown) as bar:
            bar.add_task(escape(piece), total=None)
            yield

    @contextlib.contextmanager
    def quiet(self) -> Iterator[None]:
        """Everything that is printed inside goes to the log; of other processes than the main one nowhere."""
        self.log.parent.mkdir(parents=True, exist_ok=True)
        name = self.log if PartialState().is_main_process else Path(os.devnull)
        with (
            name.open("a", encoding="utf-8", errors="replace") as log,
            contextlib.redirect_stdout(log),
            contextlib.redirect_stderr(log),
        ):
            yield
