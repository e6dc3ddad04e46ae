"""The commit of the model on the Hub that a run starts from: found once, recorded, and the same when it goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from hf_transfer.hub import commit_of, is_commit, local_model_folder
from hf_transfer.runs.arguments import Experiment

REVISION_FILE = "base_model.json"
"""In `output_dir`: {"base_model", "base_model_revision"}."""


def with_revision(experiment: Experiment) -> Experiment:
    """The experiment with the commit of its model in place of a branch or of nothing; of a folder as it is.

    A run that is resumed starts from the commit that it began with, whatever was pushed since.

    Args:
        experiment: of a run.

    Raises:
        ValueError: a revision of a local folder, or another commit than the run began with.
        HubError: the model has no such revision.
    """
    model = experiment.model
    if model.model is None:
        return experiment
    try:
        is_local = local_model_folder(model.model) is not None
    except (FileNotFoundError, ValueError):  # which loading tells
        return experiment
    if is_local:
        if model.revision is not None:
            raise ValueError(f"`revision` is for models on the Hub, and `{model.model}` is a folder on this machine.")
        return experiment
    begun = None
    if experiment.run.resume:
        begun = recorded_revision(Path(experiment.config.output_dir), model.model)
    if begun is not None and is_commit(model.revision) and model.revision != begun:
        raise ValueError(
            f"`{experiment.config.output_dir}` was begun from the commit {begun} of `{model.model}`, and `revision` "
            f"is {model.revision}: leave it out to go on, or start over with --overwrite."
        )
    found = [begun]
    if begun is None:
        if PartialState().is_main_process:
            found = [commit_of(model.model, model.revision)]
        broadcast_object_list(found)
    return experiment._replace(model=replace(model, revision=found[0] or model.revision))


def recorded_revision(output_dir: Path, name: str) -> str | None:
    """The commit that a run in this folder began with; None where it started from another model."""
    try:
        record = json.loads((output_dir / REVISION_FILE).read_text())
    except (OSError, ValueError):
        return None
    return record.get("base_model_revision") if record.get("base_model") == name else None


def revision_facts(experiment: Experiment) -> dict[str, Any]:
    """The name and the commit of the model on the Hub; empty for anything else."""
    if not is_commit(experiment.model.revision):
        return {}
    return {"base_model": experiment.model.model, "base_model_revision": experiment.model.revision}


def record_revision(experiment: Experiment) -> None:
    """Write which commit the run begins with, where it is one; main process only."""
    path = Path(experiment.config.output_dir) / REVISION_FILE
    facts = revision_facts(experiment)
    if PartialState().is_main_process:
        if facts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts) + "\n")
        else:
            path.unlink(missing_ok=True)
    PartialState().wait_for_everyone()
