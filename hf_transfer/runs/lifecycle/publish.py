"""The chosen model in the output folder with a card that says how it was chosen, and on the Hub."""

from __future__ import annotations

import json
import re
import shutil
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from accelerate import PartialState

from hf_transfer.hub import HubError, atomic_folder, push_folder
from hf_transfer.hub.card import CARD_NAME
from hf_transfer.runs.lifecycle.outcome import Outcome
from hf_transfer.runs.lifecycle.stages import Setting
from hf_transfer.runs.lifecycle.store import from_main

CHOSEN, PUSHED = "chosen model", "push"
TITLE = "## How this model was chosen"


def save_chosen(outcome: Outcome, place: Setting) -> dict[str, Any]:
    """Copy the chosen model and write its card, once; gives what it depends on."""
    source = Path(outcome.chosen.best["model"])
    table = [[row["stage"], row["model"], row["method"], row["validation"], row["test"]] for row in outcome.table()]
    depends = {"model": source.parent.name, "table": table, "plan": place.plan.given}
    if place.store.find(CHOSEN, depends) is None or not outcome.folder.is_dir():
        if PartialState().is_main_process:
            with atomic_folder(outcome.folder, overwrite=True) as staging:
                shutil.copytree(source, staging, dirs_exist_ok=True)
                card = staging / CARD_NAME
                card.write_text(
                    with_choice(card.read_text(encoding="utf-8"), outcome, place, source), encoding="utf-8"
                )
        PartialState().wait_for_everyone()
        place.store.keep(CHOSEN, depends, str(outcome.folder))
    return depends


def push_chosen(outcome: Outcome, place: Setting, depends: Mapping[str, Any]) -> str | None:
    """Push the chosen model, once, and give its address; None where the plan names no repository.

    Args:
        outcome: with the model in its folder.
        place: where it worked.
        depends: of `save_chosen`.

    Raises:
        HubError: the Hub refused or could not be reached; the same command goes on with the push.
    """
    if place.plan.hub_model_id is None:
        return None
    pushed = {**depends, "repository": place.plan.hub_model_id, "private": place.plan.private}
    found = place.store.find(PUSHED, pushed)
    if found is None:
        found = place.store.keep(PUSHED, pushed, from_main(pushed_to(outcome.folder, place)))
    place.progress.say(f"Published: {found}")
    return found


def pushed_to(folder: Path, place: Setting) -> str | None:
    """The address of the repository; main process only."""
    if not PartialState().is_main_process:
        return None
    try:
        with place.progress.quiet():
            return str(push_folder(folder, place.plan.hub_model_id, private=place.plan.private).repo_url)
    except HubError as error:
        raise HubError(f"{error} The model is whole in `{folder}`: the same command goes on with the push.") from error


def with_choice(card: str, outcome: Outcome, place: Setting, source: Path) -> str:
    """The card of the training with what the model was compared with, and the plan."""
    lines = [TITLE, "", outcome.verdict(), "", "| stage | model | method | chosen by | validation | test |"]
    lines.append("| --- | --- | --- | --- | --- | --- |")
    for row in outcome.table():
        test = "" if row["test"] is None else f"{row['test']['mean']:.4g}"
        name = f"**{row['method']}**" if row["chosen"] else row["method"]
        validation = "" if row["validation"] is None else f"{row['validation']['mean']:.4g}"
        cells = [row["stage"], row["model"], name, row["chosen_by"] or "", validation, test]
        lines.append(f"| {' | '.join(cells)} |")
    plan = yaml.safe_dump(json.loads(json.dumps(place.plan.given, default=str)), sort_keys=False)
    lines += ["", "The plan, for `hf-transfer run PLAN.yaml`:", "", "```yaml", plan.rstrip(), "```", ""]
    card = card.replace(str(source), str(outcome.folder))
    # and whatever the output folder was called when the model was trained
    trained = rf"""[^\s"'`]*{re.escape(f"{source.parent.name}/{source.name}")}(?![\w./-])"""
    return re.sub(trained, lambda _: str(outcome.folder), card).rstrip() + "\n\n" + "\n".join(lines)
