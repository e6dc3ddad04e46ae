"""Names of models on the Hub at a branch, tag or commit: ORG/NAME@REVISION."""

from __future__ import annotations

from pathlib import Path

from huggingface_hub.errors import HFValidationError
from huggingface_hub.utils import validate_repo_id

from hf_transfer.models.short_names import model_folder


def split_revision(name: str) -> tuple[str, str | None]:
    """A name and the revision that it says; None where it says none, or is a folder that is here.

    Args:
        name: folder or Hub id, possibly with @REVISION.
    """
    stem, at, revision = name.partition("@")
    return (stem, revision) if at and revision and is_on_hub(stem) and not Path(name).exists() else (name, None)


def at_revision(name: str) -> tuple[str, dict[str, str]]:
    """What `from_pretrained` takes of a name: folder or Hub id, and the keyword `revision` where the name says one.

    Args:
        name: packaged name, folder or Hub id, possibly with @REVISION.

    Raises:
        ValueError: the package of a packaged name is not installed.
    """
    stem, revision = split_revision(model_folder(name))
    return stem, {} if revision is None else {"revision": revision}


def pinned(name: str, revision: str | None) -> str:
    """The name of a model on the Hub with a revision, in the place of the one that it may say; any other as it is.

    Args:
        name: folder or Hub id, possibly with @REVISION.
        revision: branch, tag or commit; None leaves the name.
    """
    if revision is None:
        return name
    stem = split_revision(name)[0]
    return f"{stem}@{revision}" if is_on_hub(stem) else name


def is_on_hub(name: str) -> bool:
    """Whether a name can be one on the Hub, and is no folder or file of this machine."""
    if Path(name).exists():
        return False
    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return True
