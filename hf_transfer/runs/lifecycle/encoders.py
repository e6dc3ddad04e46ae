"""Models without their heads, from which later stages start where the plan says `rank: {start: encoder}`."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from accelerate import PartialState
from transformers import AutoModel, PreTrainedModel

from hf_transfer.hub import atomic_folder
from hf_transfer.modeling.adapters import is_adapter
from hf_transfer.modeling.loading import load_complete
from hf_transfer.models.revisions import split_revision
from hf_transfer.runs.lifecycle.candidates import revision_of_hub, weights
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.store import Store
from hf_transfer.runs.models import load_processor
from hf_transfer.runs.task import find_task
from hf_transfer.tasks.arguments import ModelArguments


def encoder_of(candidate: Mapping[str, Any], rows: Any, trusts: bool, store: Store, progress: Progress) -> dict:
    """A candidate without its head, saved once; one of random weights as it is, which has no head that could stay.

    Args:
        candidate: a model.
        rows: training rows, which say the task where the model leaves a doubt.
        trusts: code that comes with the model.
        store: of finished pieces.
        progress: told of what is done.

    Raises:
        ValueError: it is an adapter, or lacks weights.
    """
    if ARCHITECTURE in candidate:
        return dict(candidate)
    name = split_revision(candidate["name"])[0]
    if is_adapter(Path(name)):
        raise ValueError(
            f"`rank.start`: `{candidate['shown']}` is an adapter, which has no encoder of its own: merge it first, by "
            "`hf-transfer export`."
        )
    piece, depends = f"encoder of {candidate['shown']}", {"revision": candidate["revision"]}
    folder = store.folder(piece, depends)
    if store.find(piece, depends) is None:
        stored = {"trust_remote_code": trusts, **revision_of_hub(candidate)}
        with progress.quiet():
            model = load_complete(AutoModel, name, **stored)
            arguments = ModelArguments(model=name, **stored)
            arguments.task = find_task(arguments, lambda: rows)
            save_encoder(model, load_processor(arguments, model.config), folder)
        store.keep(piece, depends, str(folder))
    facts = {"name": str(folder), "revision": store.folder(piece, depends).name}
    return {**candidate, **facts, "bytes": sum(weights(folder).values())}


def save_encoder(model: PreTrainedModel, processor: Any, folder: Path) -> None:
    """Weights, configuration and processor in a folder, whole or not at all; on every process when this returns."""
    if PartialState().is_main_process:
        with atomic_folder(folder, overwrite=True) as staging:
            model.save_pretrained(staging)
            if processor is not None:
                processor.save_pretrained(staging)
    PartialState().wait_for_everyone()
