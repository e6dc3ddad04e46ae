"""Which commit a model on the Hub is at, so that what goes on later starts from the same weights."""

from __future__ import annotations

import re
from pathlib import Path

from huggingface_hub import HfApi, constants, try_to_load_from_cache
from huggingface_hub.errors import HTTPError, RepositoryNotFoundError, RevisionNotFoundError

from hf_transfer.hub.errors import readable_hub_errors
from hf_transfer.hub.retry import with_retries

CONFIGS = ("config.json", "adapter_config.json")
_COMMIT = re.compile(r"[0-9a-f]{40}")


def is_commit(revision: str | None) -> bool:
    """Whether a revision is a whole commit hash, which stays the same, and no branch or tag."""
    return revision is not None and _COMMIT.fullmatch(revision) is not None


def commit_of(repo_id: str, revision: str | None = None, token: str | None = None) -> str | None:
    """The commit that a revision of a model means now; None where neither the Hub nor the cache knows the model.

    Where the Hub does not answer, the cache says which commit was pulled last.

    Args:
        repo_id: "ORG/NAME", or a bare "NAME".
        revision: branch, tag or commit; default "main".
        token: access token; default is the one of `hf auth login` or HF_TOKEN.

    Raises:
        HubError: the model has no such revision.
    """
    if is_commit(revision):
        return revision
    if not constants.is_offline_mode():
        api = HfApi(token=token, library_name="hf_transfer")
        try:
            return with_retries(lambda: api.model_info(repo_id, revision=revision), attempts=2).sha
        except RevisionNotFoundError:
            with readable_hub_errors(f"Asking for the revision {revision!r} of", repo_id):
                raise
        except RepositoryNotFoundError:
            return None
        except (HTTPError, ValueError):
            pass  # the cache may know; what is wrong is said where the model is loaded
    return cached_commit(repo_id, revision)


def cached_commit(repo_id: str, revision: str | None = None) -> str | None:
    """The commit of a model in the cache."""
    for name in CONFIGS:
        try:
            found = try_to_load_from_cache(repo_id, name, revision=revision)
        except ValueError:
            return None
        # .../snapshots/COMMIT/config.json
        if isinstance(found, str) and is_commit(commit := Path(found).parent.name):
            return commit
    return None
