"""Where candidates come from: a list, a file of names, or a query to the Hub; and how they get onto this machine."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HTTPError
from huggingface_hub.file_download import repo_folder_name

from hf_transfer.hub import HubError, explain_hub_error, local_model_folder, pull_model
from hf_transfer.hub.errors import readable_hub_errors
from hf_transfer.hub.retry import with_retries
from hf_transfer.modeling.loading import revision_of
from hf_transfer.models.revisions import split_revision


@dataclass(frozen=True)
class Access:
    """How candidates are fetched and loaded; see `rank_models`."""

    cache_dir: str | None = None
    token: str | None = None
    trust_remote_code: bool = False
    allow_pickle: bool = False
    max_params: int | None = None
    free_disk: bool = False


@dataclass
class Fetched:
    """A candidate on this machine. `folder` is None when its result is already known."""

    name: str
    folder: Path | None
    revision: str | None
    removable: Path | None = None


def read_models(models: Sequence[str | os.PathLike] | str | os.PathLike) -> list[str]:
    """Names of the candidates, each once: a list, one name, or a text file with a name a line (# starts a comment).

    Raises:
        ValueError: when there are none, or the file is not text.
    """
    if isinstance(models, str | os.PathLike):
        path = Path(models).expanduser()
        try:
            lines = path.read_text(encoding="utf-8").splitlines() if path.is_file() else None
        except UnicodeDecodeError as error:
            raise ValueError(f"`{path}` is no text file with the name of a model a line.") from error
        models = [models] if lines is None else [line.partition("#")[0].strip() for line in lines]
    names = list(dict.fromkeys(os.fspath(name) for name in models if os.fspath(name)))
    if not names:
        raise ValueError("`models` names no candidates.")
    return names


def find_models(
    *,
    filter: str | Sequence[str] | None = None,
    author: str | None = None,
    search: str | None = None,
    pipeline_tag: str | None = None,
    min_params: int | None = None,
    max_params: int | None = None,
    limit: int = 20,
    token: str | None = None,
) -> list[str]:
    """Ids of Hub models that match, most downloaded first; the list's metadata alone is read, nothing is downloaded.

    Args:
        filter: tags, all of which a model has.
        author: user or organisation.
        search: part of the name.
        pipeline_tag: for example "fill-mask" or "image-feature-extraction".
        min_params, max_params: bounds on the parameters; models that do not state theirs are left out.
        limit: at most so many.
        token: access token.

    Raises:
        HubError: the Hub could not be asked.
    """
    bounds = [f"{word}:{bound}" for word, bound in (("min", min_params), ("max", max_params)) if bound is not None]
    with readable_hub_errors("Listing models of", author or search or "the Hub"):
        found = HfApi(token=token, library_name="hf_transfer").list_models(
            filter=filter,
            author=author,
            search=search,
            pipeline_tag=pipeline_tag,
            num_parameters=",".join(bounds) or None,
            sort="downloads",
            limit=limit,
        )
        return [model.id for model in found]


def fetch(name: str, access: Access, is_known: Callable[[str, str | None], bool]) -> Fetched:
    """Bring one candidate onto this machine, unless `is_known(name, revision)` says that its result is there.

    A model on the Hub may be ORG/NAME@REVISION.

    Raises:
        HubError, ValueError, OSError: it cannot be had, or has more parameters than `access.max_params`.
    """
    local = local_model_folder(name)
    if local is not None:
        revision = revision_of(local)
        return Fetched(name, None if is_known(name, revision) else local, revision)
    repo_id, asked = split_revision(name)
    revision, parameters, trouble = ask_hub(repo_id, access, asked)
    if is_known(name, revision):
        return Fetched(name, None, revision)
    if None not in (parameters, access.max_params) and parameters > access.max_params:
        raise ValueError(f"It has {parameters:,} parameters, more than `max_params` ({access.max_params:,}).")
    cache = Path(access.cache_dir or constants.HF_HUB_CACHE).expanduser()
    kept_here = cache / repo_folder_name(repo_id=repo_id, repo_type="model")
    removable = kept_here if access.free_disk and not kept_here.exists() else None
    try:
        options = {"token": access.token, "cache_dir": access.cache_dir, "allow_pickle": access.allow_pickle}
        folder = pull_model(repo_id, revision=asked, **options)
    except Exception as error:
        remove(removable)
        # "Not in the cache" would hide why the Hub did not answer.
        if trouble is None or not isinstance(error, HubError):
            raise
        raise HubError(f"Pulling {name!r} failed: {trouble}.") from error
    revision = revision or revision_of(folder)
    return Fetched(name, None if is_known(name, revision) else folder, revision, removable)


def ask_hub(name: str, access: Access, revision: str | None = None) -> tuple[str | None, int | None, str | None]:
    """Commit and number of parameters of a Hub model, None where the Hub does not say; and what went wrong, if it did.

    Nothing is raised: `pull_model` asks again, and may still find the model in the cache.
    """
    if constants.is_offline_mode():
        return None, None, None
    try:
        api = HfApi(token=access.token, library_name="hf_transfer")
        info = with_retries(lambda: api.model_info(name, revision=revision), attempts=2)
    except (HTTPError, ValueError) as error:
        return None, None, explain_hub_error(error, name)
    return info.sha, info.safetensors.total if info.safetensors else None, None


def remove(folder: Path | None) -> None:
    """Remove a model from the cache."""
    if folder is not None:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def fetched_ahead(
    names: Sequence[str], get: Callable[[str], Fetched]
) -> Iterator[Iterator[tuple[str, Future[Fetched]]]]:
    """Names with the future of their fetch; while one is being scored, the next is on its way."""
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="fetch") as pool:

        def walk() -> Iterator[tuple[str, Future[Fetched]]]:
            upcoming = pool.submit(get, names[0]) if names else None
            for index, name in enumerate(names):
                present = upcoming
                # The next download begins when this one is complete: two at once would only share the line.
                if index + 1 < len(names):
                    upcoming = pool.submit(get, names[index + 1])
                yield name, present

        yield walk()
