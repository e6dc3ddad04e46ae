"""The model card of a saved folder, written again: `hf-transfer card FOLDER`.

A folder that a run saved keeps the facts of the run in `card.json`. Of any other folder a card says how the model is
loaded, and nothing of its training.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from huggingface_hub import ModelCard

from hf_transfer.hub import RunFacts, read_facts, write_card
from hf_transfer.hub.adapter import is_adapter_folder, named_base
from hf_transfer.hub.card import CARD_NAME, is_written_here
from hf_transfer.runs.export import with_known_task
from hf_transfer.runs.models import load_model
from hf_transfer.training.card_facts import loading_facts_of


def write_folder_card(
    folder: str | Path, task: str | None = None, overwrite: bool = False, **changes: Any
) -> tuple[Path, RunFacts]:
    """Write the card of a saved model.

    Args:
        folder: of the model.
        task: of the model, where its configuration leaves a doubt; read only where no run kept its facts.
        overwrite: replace a card that was written by hand.
        changes: fields of `RunFacts` that take the place of what is known; those that are None are left as they are.

    Returns:
        The path of the card, and its facts.

    Raises:
        FileNotFoundError: there is no such folder.
        FileExistsError: the card there was not written by this package.
        ValueError: the folder is no model, or a field is not accepted.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise FileNotFoundError(f"there is no folder `{folder}`.")
    path = folder / CARD_NAME
    if path.is_file() and not overwrite and not is_written_here(ModelCard.load(path, ignore_metadata_errors=True)):
        raise FileExistsError(f"`{path}` was written by hand: `--overwrite` replaces it.")
    facts = read_facts(folder) or facts_of_folder(folder, task)
    facts = replace(facts, **{name: value for name, value in changes.items() if value is not None})
    return write_card(folder, facts), facts


def facts_of_folder(folder: Path, task: str | None = None) -> RunFacts:
    """What a folder that keeps no facts says of itself."""
    arguments = with_known_task(folder, task)
    adapter = is_adapter_folder(folder)
    model = load_model(arguments, allow_new_weights=False)
    named = {"model_name": folder.resolve().name, "model_id": str(folder)}
    base = named_base(folder) if adapter else None
    return RunFacts(**named, base_model=base, **loading_facts_of(model))
