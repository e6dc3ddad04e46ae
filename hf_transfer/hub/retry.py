"""Try again where trying again can help.

The Hub's client retries listings and file transfers, but neither `model_info`, `whoami`, `create_repo` nor the commit
at the end of an upload: one 503 there would throw away an upload of gigabytes.
"""

import logging
from collections.abc import Callable
from time import sleep
from typing import TypeVar

from huggingface_hub.errors import HfHubHTTPError, HTTPError

logger = logging.getLogger(__name__)

# Timeouts, a concurrent commit (409, 412), rate limits and server trouble pass; a wrong token or name does not.
PASSING_STATUS = frozenset({408, 409, 412, 429, 500, 502, 503, 504})
LONGEST_WAIT = 60.0

Result = TypeVar("Result")


def with_retries(call: Callable[[], Result], attempts: int = 4, first_wait: float = 0.5) -> Result:
    """Return `call()`, repeated while it fails for a reason that passes.

        wait before attempt k + 1 = Retry-After if the server names one, else first_wait * 2^(k-1)   [seconds]

    Args:
        call: must be safe to repeat.
        attempts: how often in all.
        first_wait: seconds before the second attempt.

    Raises:
        Exception: what the last attempt raised, or at once what does not pass (401, 403, 404, a longer Retry-After
            than a minute, ...).
    """
    for attempt in range(1, attempts + 1):
        try:
            return call()
        except (HTTPError, ConnectionError, TimeoutError) as error:  # the latter two of hf_xet
            wait = _seconds_to_wait(error, first_wait * 2 ** (attempt - 1))
            if attempt == attempts or wait is None:
                raise
            logger.warning("%s; trying again in %.1f s.", type(error).__name__, wait)
            sleep(wait)
    raise ValueError(f"`attempts` should be positive, got {attempts}.")


def _seconds_to_wait(error: Exception, default: float) -> float | None:
    """Seconds until it is worth trying again, None if it never is. Without a response the connection was lost."""
    if not isinstance(error, HfHubHTTPError):
        return default
    if error.response.status_code not in PASSING_STATUS:
        return None
    named = error.response.headers.get("Retry-After", "")
    wait = float(named) if named.isdigit() else default
    return wait if wait <= LONGEST_WAIT else None
