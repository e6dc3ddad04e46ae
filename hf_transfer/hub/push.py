"""Push a model folder to the Hub: everything that can be known to fail is asked before the first byte is sent."""

import json
import os
import shlex
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from huggingface_hub import CommitInfo, HfApi, ModelCard
from huggingface_hub.utils import validate_repo_id

from hf_transfer.hub.adapter import ADAPTER_CONFIG, is_adapter_folder, is_hub_id, linked_copy, named_base
from hf_transfer.hub.card import CARD_NAME, card_on_hub, check_card
from hf_transfer.hub.errors import HubError, readable_hub_errors
from hf_transfer.hub.retry import with_retries

RESUMING = (
    *(
        "training_args.bin",
        "objectives.safetensors",
        "frozen.safetensors",
        "resume.json",
        "trainer_state.json",
        "optimizer.*",
    ),
    *("scheduler.pt", "scaler.pt", "rng_state*.pth"),
)
"""Files that only a resumed training reads."""
# A Trainer's checkpoints hold optimizer states of many times the model's size, half-saved folders are no model, and
# the other folders are what a run leaves beside its model.
NOT_PUSHED = (
    *("checkpoint-*/**", ".*.saving-*/**", "**/__pycache__/**", *RESUMING),
    *("model/**", "source_only/**", "round-*/**", "translated/**", "figures/**", "runs/**"),
)


def push_folder(
    folder: str | os.PathLike,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    commit_message: str = "Upload model with hf_transfer",
    revision: str | None = None,
    ignore_patterns: Sequence[str] = NOT_PUSHED,
    base_model: str | None = None,
) -> CommitInfo:
    """Push a saved model with its card, making the repository if there is none.

    Before anything is uploaded: the folder holds a model and a readable card, `repo_id` is a name, the token is there,
    valid and may write, the repository exists or was made, is as private as asked for, and the Hub accepts the card.
    Files the Hub already has are not sent again, so that a push that was cut short goes on where it stopped.

    Args:
        folder: a Hugging Face model folder (or an adapter's) with a `README.md`.
        repo_id: "ORG/NAME", or "NAME" for the token's own account.
        private: make the repository private or public; None leaves the choice to the account. An existing repository
            keeps its visibility: one that is public is refused if `private=True`.
        token: access token; default is the one of `hf auth login` or HF_TOKEN.
        commit_message: first line of the commit.
        revision: branch to push to, made if there is none; default "main".
        ignore_patterns: files of the folder to leave out; by default what only a resumed training reads.
        base_model: of an adapter: the Hub id of its base, in place of the local folder that it was trained on. It
            has to be on the Hub already.

    Returns:
        The commit; `.commit_url` is its address, `.repo_url` the repository.

    Raises:
        ValueError: the folder is no model, its card is missing or refused, or it is an adapter whose base is a local
            folder, which nobody else has.
        HubError: the Hub refused or could not be reached; the message says what to do.
    """
    folder = Path(folder)
    check_model_folder(folder)
    card = check_card(folder)
    texts = _adapter_on_hub(folder, base_model)
    repo_id = check_can_push(repo_id, token=token)
    with readable_hub_errors("Pushing to", repo_id):
        api = HfApi(token=token, library_name="hf_transfer")
        _ask_hub_about_card(card, folder)
        if texts:
            with_retries(lambda: api.model_info(base_model))
        if (text := card_on_hub(folder, repo_id)) is not None:
            texts[CARD_NAME] = text
        _prepare_repo(api, repo_id, private, revision)
        with linked_copy(folder, texts) if texts else nullcontext(folder) as place:
            return with_retries(
                lambda: api.upload_folder(
                    repo_id=repo_id,
                    folder_path=place,
                    commit_message=commit_message,
                    revision=revision,
                    ignore_patterns=list(ignore_patterns),
                )
            )


def check_can_push(repo_id: str, *, token: str | None = None) -> str:
    """The full name of the repository; ask before long work whether its result can be pushed at all.

    Args:
        repo_id: "ORG/NAME", or "NAME" for the token's own account.
        token: access token; default is the one of `hf auth login` or HF_TOKEN.

    Raises:
        HubError: not a name, no token, one that is not valid or may not write, or no Hub.
    """
    with readable_hub_errors("Pushing to", repo_id):
        validate_repo_id(repo_id)
        return _writable_name(HfApi(token=token, library_name="hf_transfer"), repo_id)


def check_base_is_public(base: str | None, adapter: str) -> None:
    """Refuse to publish an adapter that nobody else could load.

    Args:
        base: the base model as the adapter names it.
        adapter: what to call the adapter in the message.

    Raises:
        ValueError: the base is a folder of this machine, or has no name at all.
    """
    if is_hub_id(base):
        return
    what = f"the folder `{base}` of this machine" if base else "a model that was never saved"
    raise ValueError(
        f"{adapter} is an adapter of {what}: on the Hub nobody could load it. Publish the base first "
        "(`hf-transfer push BASE_FOLDER ORG/BASE`) and then the adapter with `--base-model ORG/BASE`; or publish the "
        "merged model: `model.merge_and_unload().save_pretrained(...)`."
    )


def push_command(folder: str | os.PathLike, repo_id: str, private: bool | None = None) -> str:
    """What to type to publish a folder."""
    words = [
        "hf-transfer",
        "push",
        str(folder),
        repo_id,
        *({True: ["--private"], False: ["--no-private"]}.get(private, [])),
    ]
    return shlex.join(words)


def _adapter_on_hub(folder: Path, base_model: str | None) -> dict[str, str]:
    """The configuration of an adapter with its base's name on the Hub, by its file; empty where nothing changes."""
    if not is_adapter_folder(folder):
        if base_model is not None:
            raise ValueError(f"`base_model` is for adapters, and {folder} holds a whole model.")
        return {}
    check_base_is_public(base_model or named_base(folder), str(folder))
    if base_model is None:
        return {}
    config = json.loads((folder / ADAPTER_CONFIG).read_text())
    return {ADAPTER_CONFIG: json.dumps({**config, "base_model_name_or_path": base_model}, indent=2, sort_keys=True)}


def check_model_folder(folder: str | os.PathLike) -> None:
    """Raise `ValueError` unless the folder holds a configuration and weights."""
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"{folder} is no folder. Save the model there first with `model.save_pretrained(...)`.")
    if not any((folder / name).is_file() for name in ("config.json", "adapter_config.json")):
        raise ValueError(
            f"{folder} is no model folder: it has neither config.json nor adapter_config.json. "
            "Save the model there with `model.save_pretrained(...)`."
        )
    weights = [path.name for pattern in ("*.safetensors", "*.bin") for path in folder.glob(pattern)]
    if not set(weights) - set(RESUMING):
        raise ValueError(f"{folder} has a configuration but no weights (*.safetensors).")


def _writable_name(api: HfApi, repo_id: str) -> str:
    """The full name of the repository, after asking the Hub whose token this is and whether it may write at all."""
    account = with_retries(api.whoami)
    if account.get("auth", {}).get("accessToken", {}).get("role") == "read":
        raise HubError(f"Pushing to {repo_id!r} failed: this token may only read. Use one with write access.")
    return repo_id if "/" in repo_id else f"{account['name']}/{repo_id}"


def _ask_hub_about_card(card: ModelCard, folder: Path) -> None:
    try:
        with_retries(card.validate)
    except ValueError as error:
        raise ValueError(f"The Hub refuses the metadata of {folder / CARD_NAME}: {error}") from None


def _prepare_repo(api: HfApi, repo_id: str, private: bool | None, revision: str | None) -> None:
    """Make the repository and the branch where they are missing."""
    with_retries(lambda: api.create_repo(repo_id, private=private, exist_ok=True))
    if private and not with_retries(lambda: api.model_info(repo_id)).private:
        raise HubError(
            f"Pushing to {repo_id!r} failed: it exists and is public, but `private=True` was asked for. "
            "Make it private in its settings, or choose another name."
        )
    if revision is not None and revision != "main" and not revision.startswith("refs/"):
        with_retries(lambda: api.create_branch(repo_id, branch=revision, exist_ok=True))
