"""Each failure of the Hub as one sentence that says what to do, from the exceptions that its real client raises."""

import pytest
from huggingface_hub import HfApi, constants
from huggingface_hub.errors import HfHubHTTPError
from transformers import AutoConfig

from hf_transfer.hub import HubError, explain_hub_error, push_folder, retry
from hf_transfer.hub.errors import may_pass, readable_hub_errors

FAULTS = [
    (401, "InvalidToken", "the token was refused (401: fault 401). Log in with `hf auth login`"),
    (403, "", "this token may not do that (403: fault 403). Use a token with write access to 'lab'"),
    (403, "GatedRepo", "the repository is gated. Ask for access at"),
    (404, "RepoNotFound", "no such repository, or it is private and this token may not see it (404)"),
    (404, "RevisionNotFound", "it has no such revision"),
    (404, "EntryNotFound", "the repository has no such file"),
    (409, "", "another change was made at the same time (409: fault 409)"),
    (412, "", "another change was made at the same time (412: fault 412)"),
    (413, "", "a file is too large for one upload (413: fault 413). Save the model in smaller shards"),
    (429, "", "too many requests (429). Wait 7 seconds and run it again"),
    (503, "", "the Hub is in trouble (503: fault 503). Nothing is wrong with your files"),
    (418, "", "the Hub answered 418: fault 418"),
]


@pytest.mark.parametrize(("status", "code", "sentence"), FAULTS, ids=lambda value: str(value)[:16])
def test_each_answer_has_its_sentence(hub, status: int, code: str, sentence: str) -> None:
    hub.fail(status, code=code, retry_after=7)
    with pytest.raises(HfHubHTTPError) as caught:
        HfApi().model_info("lab/tiny")
    explanation = explain_hub_error(caught.value, "lab/tiny")
    assert explanation.startswith(sentence)
    assert "\n" not in explanation


def test_a_broken_connection(hub) -> None:
    with pytest.raises(Exception) as caught:  # the type belongs to the HTTP library, httpx or httpx2
        HfApi(endpoint="http://127.0.0.1:9").model_info("lab/tiny")
    assert explain_hub_error(caught.value, "lab/tiny").startswith(f"the connection to {constants.ENDPOINT} broke")


def test_a_hub_without_xet_storage(hub, monkeypatch, tiny_model) -> None:
    """hf_xet raises classes of Python: nothing else would say whose connection it was."""
    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)
    with pytest.raises(HubError) as caught:
        push_folder(tiny_model, "lab/tiny")
    assert str(caught.value).startswith(f"Pushing to 'lab/tiny' failed: the connection to {constants.ENDPOINT} broke")
    assert "set HF_HUB_DISABLE_XET=1" in str(caught.value) and "\n" not in str(caught.value)
    assert may_pass(explain_hub_error(caught.value.__cause__, "lab/tiny"))


def test_offline(hub, monkeypatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(Exception) as caught:
        HfApi().model_info("lab/tiny")
    assert "offline mode is on" in explain_hub_error(caught.value, "lab/tiny")


def test_the_cause_is_found_under_the_wrapping_of_transformers(hub, tmp_path) -> None:
    hub.add_repo("secret/tiny", {"config.json": b"{}"}, gated=True)
    with pytest.raises(OSError) as caught:
        AutoConfig.from_pretrained("secret/tiny", cache_dir=tmp_path)
    assert explain_hub_error(caught.value, "secret/tiny").startswith("the repository is gated")


def test_not_in_the_cache_yields_to_the_reason(hub, tmp_path) -> None:
    hub.add_repo("lab/tiny", {"config.json": b"{}"})
    hub.fail(403, path="/api/models/lab/tiny")
    with pytest.raises(FileNotFoundError) as caught:
        HfApi().snapshot_download("lab/tiny", cache_dir=tmp_path)
    assert explain_hub_error(caught.value, "lab/tiny").startswith("this token may not do that (403")


def test_what_is_not_about_the_hub_is_left_alone() -> None:
    assert explain_hub_error(ValueError("labels"), "lab/tiny") is None
    with pytest.raises(ValueError, match=r"^labels$"), readable_hub_errors("Pulling", "lab/tiny"):
        raise ValueError("labels")


def test_the_error_says_what_was_tried_and_keeps_its_cause(hub) -> None:
    hub.fail(404, code="RepoNotFound")
    with pytest.raises(HubError) as caught, readable_hub_errors("Pulling", "lab/tiny"):
        HfApi().model_info("lab/tiny")
    assert str(caught.value).startswith("Pulling 'lab/tiny' failed: no such repository")
    assert isinstance(caught.value.__cause__, HfHubHTTPError)
    assert explain_hub_error(caught.value, "lab/tiny") == str(caught.value)
