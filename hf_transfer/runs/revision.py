"""The commits of the models on the Hub that a run starts from or draws on: found once, recorded, and the same when it
goes on."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate import PartialState
from accelerate.utils import broadcast_object_list

from hf_transfer.hub import commit_of, is_commit, local_model_folder
from hf_transfer.models.revisions import pinned, split_revision
from hf_transfer.runs.arguments import Experiment
from hf_transfer.runs.named_models import may_move, names_in, with_names

REVISION_FILE = "base_model.json"
"""In `output_dir`: {"base_model", "base_model_revision", "members": {NAME: COMMIT}}."""
MEMBERS = "members"


def with_revision(experiment: Experiment) -> Experiment:
    """The experiment with commits in place of branches or of nothing, for every model on the Hub; folders stay.

    A run that is resumed uses the commits that it began with, whatever was pushed since.

    Args:
        experiment: of a run.

    Raises:
        ValueError: a revision of a local folder, or another commit than the run began with.
        HubError: a model has no such revision.
    """
    experiment = with_model_revision(experiment)
    begun = read_record(Path(experiment.config.output_dir)).get(MEMBERS, {}) if experiment.run.resume else {}
    named = arguments_of(experiment)
    commits = {}
    for name in names_in(named):
        if may_move(name):
            stem, revision = split_revision(name)
            commits[name] = pinned(name, begun.get(stem) or commit_from_main(stem, revision))
    return (
        with_arguments(experiment, with_names(named, lambda name: commits.get(name, name))) if commits else experiment
    )


def with_model_revision(experiment: Experiment) -> Experiment:
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
    found = begun or commit_from_main(model.model, model.revision)
    return experiment._replace(model=replace(model, revision=found or model.revision))


def commit_from_main(name: str, revision: str | None) -> str | None:
    """What the main process knows of a commit, on every process. Raises HubError as `commit_of`."""
    found = [commit_of(name, revision) if PartialState().is_main_process else None]
    broadcast_object_list(found)
    return found[0]


def arguments_of(experiment: Experiment) -> dict[str, Any]:
    """The arguments of a run that may name models beside the one in training."""
    model = experiment.model
    named = {"converters": model.converters, "architecture": model.architecture, "tokenizer": model.tokenizer}
    return {**named, "objectives": experiment.config.objectives, "dat": experiment.data.dat}


def with_arguments(experiment: Experiment, named: dict[str, Any]) -> Experiment:
    """The experiment with other values of what `arguments_of` gives."""
    experiment.config.objectives = named["objectives"]
    model = {name: named[name] for name in ("converters", "architecture", "tokenizer")}
    return experiment._replace(
        model=replace(experiment.model, **model), data=replace(experiment.data, dat=named["dat"])
    )


def read_record(output_dir: Path) -> dict[str, Any]:
    """What `record_revision` wrote; empty where it wrote nothing."""
    try:
        record = json.loads((output_dir / REVISION_FILE).read_text())
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}


def recorded_revision(output_dir: Path, name: str) -> str | None:
    """The commit that a run in this folder began with; None where it started from another model."""
    record = read_record(output_dir)
    return record.get("base_model_revision") if record.get("base_model") == name else None


def revision_facts(experiment: Experiment) -> dict[str, Any]:
    """The name and the commit of the model on the Hub, and the commits of the others that the run draws on."""
    named = [split_revision(name) for name in names_in(arguments_of(experiment))]
    members = {name: commit for name, commit in named if is_commit(commit)}
    facts: dict[str, Any] = {MEMBERS: members} if members else {}
    if not is_commit(experiment.model.revision):
        return facts
    return {"base_model": experiment.model.model, "base_model_revision": experiment.model.revision, **facts}


def record_revision(experiment: Experiment) -> None:
    """Write which commits the run begins with, where it knows some; main process only."""
    path = Path(experiment.config.output_dir) / REVISION_FILE
    facts = revision_facts(experiment)
    if PartialState().is_main_process:
        if facts:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(json.dumps(facts) + "\n")
        else:
            path.unlink(missing_ok=True)
    PartialState().wait_for_everyone()
