"""One readable paragraph for everything that can go wrong between here and the Hub.

The Hub's client raises a dozen exception types whose messages are written for its developers, transformers wraps them
in `OSError`, and a broken connection is an exception of the HTTP library. `explain_hub_error` reads the whole chain
and says what happened and what to do next, in one line: a row of a ranking and an error on the terminal use it alike.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from huggingface_hub import constants
from huggingface_hub.errors import (
    DisabledRepoError,
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    HFValidationError,
    HTTPError,
    LocalEntryNotFoundError,
    LocalTokenNotFoundError,
    OfflineModeIsEnabled,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)

_LOG_IN = "Log in with `hf auth login`, or set HF_TOKEN to a token from {endpoint}/settings/tokens"
_PASSING = ("too many requests (429)", "the Hub is in trouble", "the connection to", "the Hub could not be asked")
"""Begin the explanations of what may be over in a while."""
_WITHOUT_XET = "Where the Hub's Xet storage cannot be reached, set HF_HUB_DISABLE_XET=1"
_TRY_LATER = "Nothing is wrong with your files: try again in a few minutes"


class HubError(OSError):
    """Something failed on the way to or from the Hub. The message says what to do; `__cause__` is the original."""


@contextmanager
def readable_hub_errors(action: str, repo_id: str) -> Iterator[None]:
    """Turn the client's exceptions inside the block into a `HubError` that begins with `action`.

    Args:
        action: what was tried, for example "Pushing to" or "Pulling".
        repo_id: the repository it was tried on.
    """
    try:
        yield
    except HubError:
        raise
    except Exception as error:  # the client raises a plain RuntimeError around what fails inside an upload
        explanation = explain_hub_error(error, repo_id)
        if explanation is None:
            raise
        raise HubError(f"{action} {repo_id!r} failed: {explanation}.") from error


def explain_hub_error(error: BaseException, repo_id: str) -> str | None:
    """One sentence on what happened and what to do, or None if nothing in the chain of `error` is about the Hub.

    Args:
        error: any exception; its `__cause__` and `__context__` are searched too, the outermost known one wins.
        repo_id: the repository that was asked for.
    """
    fallback = None
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        if isinstance(error, LocalEntryNotFoundError):
            # "Not in the cache" is only the consequence; why the Hub did not answer is further down the chain.
            fallback = "it is not in the cache and the Hub could not be asked. Check the network and try again"
        elif explanation := _explain_one(error, repo_id):
            return explanation
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return fallback


def may_pass(explanation: str) -> bool:
    """Whether an explanation tells of what may be over in a while, such as a 429, a 5xx or a lost connection."""
    return any(words in explanation for words in _PASSING)


def _explain_one(error: BaseException, repo_id: str) -> str | None:
    endpoint = constants.ENDPOINT
    if isinstance(error, HubError):
        return str(error)
    if isinstance(error, HFValidationError):
        return f"{repo_id!r} is no repository name ({error}). Write NAME or ORG/NAME"
    if isinstance(error, LocalTokenNotFoundError):
        return f"no access token was found. {_LOG_IN.format(endpoint=endpoint)}"
    if isinstance(error, OfflineModeIsEnabled):
        return "offline mode is on and it is not in the cache. Unset HF_HUB_OFFLINE to reach the Hub"
    if isinstance(error, HfHubHTTPError):
        return _explain_response(error, repo_id)
    if isinstance(error, EntryNotFoundError):
        return f"the repository has no such file ({_first_line(error)})"
    if isinstance(error, (HTTPError, ConnectionError, TimeoutError)) or _is_of_xet(error):
        storage = f". {_WITHOUT_XET}" if _is_of_xet(error) else ""
        return (
            f"the connection to {endpoint} broke ({type(error).__name__}: {_first_line(error)}). Check the network "
            f"and HF_ENDPOINT, then run the same command again: what is complete is not sent twice{storage}"
        )
    return None


def _is_of_xet(error: BaseException) -> bool:
    """Whether hf_xet, which moves the large files, raised it: a class of its own or Python's ConnectionError."""
    return "xet" in type(error).__name__.lower() or (isinstance(error, OSError) and "xet-" in str(error))


def _explain_response(error: HfHubHTTPError, repo_id: str) -> str:
    endpoint, status = constants.ENDPOINT, error.response.status_code
    says = error.server_message or error.response.headers.get("X-Error-Message") or f"HTTP {status}"
    says = " ".join(says.split()).rstrip(".")
    # A gated repository is also a "repository not found" to the client: ask for the narrower class first.
    if isinstance(error, GatedRepoError):
        return f"the repository is gated. Ask for access at {endpoint}/{repo_id}, then log in with that account"
    if isinstance(error, DisabledRepoError):
        return "its owner or the Hub has disabled access to the repository"
    if isinstance(error, RevisionNotFoundError):
        return "it has no such revision. Look at its branches and tags, or leave `revision` out"
    if isinstance(error, EntryNotFoundError):
        return f"the repository has no such file ({says})"
    if isinstance(error, RepositoryNotFoundError) or status == 404:
        return (
            "no such repository, or it is private and this token may not see it (404). Check the spelling. "
            f"{_LOG_IN.format(endpoint=endpoint)}"
        )
    if status == 401:
        return f"the token was refused (401: {says}). {_LOG_IN.format(endpoint=endpoint)}"
    if status == 403:
        return (
            f"this token may not do that (403: {says}). Use a token with write access to {repo_id.split('/')[0]!r}, "
            "or another namespace"
        )
    if status in (409, 412):
        return f"another change was made at the same time ({status}: {says}). Run the same command again"
    if status == 413:
        return f"a file is too large for one upload (413: {says}). Save the model in smaller shards (`max_shard_size`)"
    if status == 429:
        wait = error.response.headers.get("Retry-After")
        return f"too many requests (429). Wait {f'{wait} seconds' if wait else 'a few minutes'} and run it again"
    if status >= 500:
        return f"the Hub is in trouble ({status}: {says}). {_TRY_LATER}"
    return f"the Hub answered {status}: {says}"


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or ["no details"])[0]
