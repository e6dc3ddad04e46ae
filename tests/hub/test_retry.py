"""What passes is tried again, what does not is raised at once."""

import pytest
from huggingface_hub import HfApi
from huggingface_hub.errors import HfHubHTTPError

from hf_transfer.hub import retry
from hf_transfer.hub.retry import with_retries


@pytest.fixture
def waits(monkeypatch) -> list[float]:
    waited = []
    monkeypatch.setattr(retry, "sleep", waited.append)
    return waited


@pytest.mark.parametrize("status", [408, 409, 412, 429, 500, 502, 503, 504])
def test_trouble_that_passes_is_outlived(hub, waits, status: int) -> None:
    hub.add_repo("lab/tiny", {})
    hub.fail(status, times=2)
    assert with_retries(lambda: HfApi().model_info("lab/tiny")).id == "lab/tiny"
    assert waits == [0.5, 1.0]


@pytest.mark.parametrize("status", [400, 401, 403, 404, 413])
def test_a_refusal_is_final(hub, waits, status: int) -> None:
    hub.add_repo("lab/tiny", {})
    hub.fail(status)
    with pytest.raises(HfHubHTTPError):
        with_retries(lambda: HfApi().model_info("lab/tiny"))
    assert (len(hub.requests), waits) == (1, [])


def test_the_server_names_the_wait(hub, waits) -> None:
    hub.add_repo("lab/tiny", {})
    hub.fail(429, retry_after=3)
    with_retries(lambda: HfApi().model_info("lab/tiny"))
    assert waits == [3.0]
    hub.fail(429, retry_after=3600)
    with pytest.raises(HfHubHTTPError):
        with_retries(lambda: HfApi().model_info("lab/tiny"))
    assert waits == [3.0]


def test_attempts_end(hub, waits) -> None:
    hub.fail(503, times=9)
    with pytest.raises(HfHubHTTPError):
        with_retries(lambda: HfApi().model_info("lab/tiny"), attempts=3, first_wait=2.0)
    assert (len(hub.requests), waits) == (3, [2.0, 4.0])
    with pytest.raises(ValueError, match="`attempts` should be positive"):
        with_retries(lambda: None, attempts=0)


def test_a_lost_connection_is_tried_again(hub, waits) -> None:
    with pytest.raises(Exception, match="refused"):
        with_retries(lambda: HfApi(endpoint="http://127.0.0.1:9").model_info("lab/tiny"), attempts=2)
    assert waits == [0.5]


def test_other_exceptions_pass_through(waits) -> None:
    def fail() -> None:
        raise KeyError("mine")

    with pytest.raises(KeyError, match="mine"):
        with_retries(fail)
    assert waits == []
