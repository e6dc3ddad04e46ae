"""A plan carried out: pre-train candidates, rank, adapt to the task and the domain, combine, report, publish.

Every piece is done once: the same command again goes on where it stopped, and a changed plan does again what the
change touches. What is chosen is chosen on held-out rows or by a validator, never on the test rows.
"""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import are_progress_bars_disabled, disable_progress_bars, enable_progress_bars, load_from_disk
from transformers.utils import logging

from hf_transfer.hub import check_can_push
from hf_transfer.runs.folder_lock import held_alone
from hf_transfer.runs.lifecycle.candidates import by_name, find_candidates, pin_members, rank_candidates
from hf_transfer.runs.lifecycle.dry_run import Estimate, estimate
from hf_transfer.runs.lifecycle.encoders import encoder_of
from hf_transfer.runs.lifecycle.outcome import Outcome
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan, read_plan
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.publish import push_chosen, save_chosen
from hf_transfer.runs.lifecycle.report import write_report
from hf_transfer.runs.lifecycle.rows import prepare_rows, problem_type_of
from hf_transfer.runs.lifecycle.schedule import check_and_fit, check_methods
from hf_transfer.runs.lifecycle.stages import Entry, Setting, run_check, run_domain, run_stage
from hf_transfer.runs.lifecycle.store import Store, check_is_ours, write_whole
from hf_transfer.runs.lifecycle.zoo import pretrain, stand_ins
from hf_transfer.runs.models import without_loading_report

PLAN_FILE = "plan.json"


class Lifecycle:
    """The whole lifecycle on a user's own data.

        Lifecycle({"data": {"train": "reviews.csv"}, "candidates": ["all-minilm"]}).run()

    Args:
        plan: path of a YAML file, or a mapping of the same form.
        quiet: show no progress.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: an unknown key, a value of another type or out of range, or an unknown method.
    """

    def __init__(self, plan: str | Path | Mapping[str, Any], quiet: bool = False):
        self.plan: Plan = read_plan(plan)
        self.quiet = quiet

    def dry_run(self) -> Estimate:
        """What the plan would do and cost; nothing is trained or downloaded, and the output folder is not touched.

        Raises:
            ValueError: unusable data, a method that does not fit the model, or a budget that is too small.
        """
        self.set_device()
        with quiet_libraries(), without_loading_report():
            return estimate(self.plan)

    def set_device(self) -> None:
        """Later states of accelerate are this one, which goes to the CPU where the launcher or the plan says so."""
        PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU") or bool(self.plan.training.get("use_cpu")))

    def run(self, overwrite: bool = False) -> Outcome:
        """Carry the plan out, or go on with it.

        Args:
            overwrite: remove what earlier runs of a plan left in the output folder.

        Returns:
            The chosen model's folder, its figures, and the table of all entries.

        Raises:
            ValueError: unusable data, candidates or arguments.
            FileExistsError: the output folder holds other things than a lifecycle.
            BlockingIOError: another process is at work in the output folder.
            HubError: the Hub refused or could not be reached; the same command goes on.
        """
        self.set_device()
        started = time.perf_counter()
        check_is_ours(self.plan.output_dir)
        if self.plan.hub_model_id is not None:
            check_can_push(self.plan.hub_model_id)
        is_new = not self.plan.output_dir.exists()
        with held_alone(self.plan.output_dir):
            if overwrite and PartialState().is_main_process:
                empty(self.plan.output_dir)
            store = Store(self.plan.output_dir)
            try:
                return self.carry_out(store, started)
            except Exception:
                if is_new or overwrite:
                    store.remove_if_empty()
                raise

    def carry_out(self, store: Store, started: float) -> Outcome:
        """Every stage of the plan, in its order.

        Args:
            store: of finished pieces.
            started: when the program began.
        """
        if PartialState().is_main_process:
            write_whole(store.root / PLAN_FILE, json.dumps(self.plan.given, indent=2, default=str) + "\n")
        with quiet_libraries(), without_loading_report():
            place, models = self.start(store)
            left, seeds, notes = check_and_fit(place, models)
            for note in notes:
                place.progress.say(note)
            place = replace(place, left=left, seeds=seeds, notes=notes)
            entries = self.train(place, models)
            outcome = Outcome.of(place, models, entries, time.perf_counter() - started)
            depends = save_chosen(outcome, place)
            write_report(outcome, place)
            outcome.published = push_chosen(outcome, place, depends)
            if outcome.published is not None:
                write_report(outcome, place)
        return outcome

    def start(self, store: Store) -> tuple[Setting, list[dict[str, Any]]]:
        """Rows, candidates and ranking."""
        progress = Progress(store.root, self.quiet)
        with progress.quiet():
            rows = prepare_rows(self.plan, store)
        self.plan = self.plan.with_usual_methods(problem_type_of(rows))
        progress.say(f"Data: {rows['rows']}, {rows['labels']}")
        found = find_candidates(self.plan, store)
        pin_members(self.plan, store)
        made, pretrained = self.pretrain(store, progress, rows)
        found = made + found
        count = len(found)
        train = load_from_disk(str(Path(rows["folder"]) / "train"))
        with progress.quiet():
            models, ranked, ranking = rank_candidates(self.plan, store, rows, train, found)
        if self.plan.start == "encoder":
            trusts = bool(self.plan.rank.get("trust_remote_code"))
            models = [encoder_of(one, train, trusts, store, progress) for one in models]
            found = found + models
        progress.say(f"Models: {', '.join(one['shown'] for one in models)}" + (f" of {count}" if ranking else ""))
        revisions, shown = by_name(found, "revision"), by_name(found, "shown")
        kept = {"ranked": ranked, "pretrained": pretrained}
        place = Setting(self.plan, store, progress, rows, ranking, revisions, shown, **kept)
        return place, models

    def pretrain(
        self, store: Store, progress: Progress, rows: dict[str, Any]
    ) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
        """The candidates that the plan pre-trains and their records; before that, whether the methods fit them."""
        # of one architecture once: methods fit all of them or none
        one_each = {str(one.get(ARCHITECTURE, one["name"])): one for one in reversed(stand_ins(self.plan, store))}
        before = list(reversed(one_each.values()))
        if before:
            shown = {one["name"]: one["shown"] for one in before}
            place = Setting(self.plan, store, progress, rows, None, dict.fromkeys(shown), shown)
            check_methods(place, before)
        return pretrain(self.plan, store, progress, rows)

    def train(self, place: Setting, models: list[dict[str, Any]]) -> list[Entry]:
        """The entries of the stages that train."""
        plan, entries = self.plan, []
        if plan.checks:
            entries += run_check(place.ranked, place)
        for model in models if plan.task is not None else ():
            entries += run_stage("task", plan.task, model, place)
        if plan.combine is not None:
            if place.ranking is None:
                raise ValueError("`combine` draws on several models: name several candidates.")
            entries += run_stage("combine", plan.combine, models[0], place)
        if plan.domain is not None:
            task = [entry for entry in entries if entry.stage == "task"]
            start = models[0]
            if task:
                shown = max(task, key=lambda entry: entry.score).model
                start = next(model for model in models if model["shown"] == shown)
            entries += run_domain(plan.domain, start, place)
        return entries


def empty(folder: Path) -> None:
    """Remove what is in a folder."""
    for item in folder.iterdir():
        if item.is_dir() and not item.is_symlink():
            shutil.rmtree(item)
        else:
            item.unlink()


@contextmanager
def quiet_libraries() -> Iterator[None]:
    """Messages of libraries that the user cannot act on are not shown; the bars of `datasets` neither."""
    level, has_bars = logging.get_verbosity(), are_progress_bars_disabled()
    disable_progress_bars()
    logging.set_verbosity_error()
    try:
        yield
    finally:
        logging.set_verbosity(level)
        if not has_bars:
            enable_progress_bars()
