"""The report of a lifecycle: one self-contained page, the same as Markdown, and all figures as JSON."""

from __future__ import annotations

import json
from pathlib import Path

from accelerate import PartialState

from hf_transfer.runs.lifecycle.inspection import inspect
from hf_transfer.runs.lifecycle.outcome import Outcome
from hf_transfer.runs.lifecycle.report.facts import report_facts
from hf_transfer.runs.lifecycle.report.markdown import to_markdown
from hf_transfer.runs.lifecycle.report.page import to_html
from hf_transfer.runs.lifecycle.stages import Setting
from hf_transfer.runs.lifecycle.store import write_whole

__all__ = ["write_report"]


def write_report(outcome: Outcome, place: Setting) -> Path:
    """Write report.html, report.md and report.json into the output folder; the main process writes.

    Args:
        outcome: of the plan.
        place: where it worked.
    """
    facts = report_facts(outcome, place, inspect(outcome, place))
    root = place.store.root
    if PartialState().is_main_process:
        write_whole(root / "report.json", json.dumps(facts, indent=1, default=str) + "\n")
        write_whole(root / "report.md", to_markdown(facts))
        write_whole(root / "report.html", to_html(facts))
    PartialState().wait_for_everyone()
    return root / "report.html"
