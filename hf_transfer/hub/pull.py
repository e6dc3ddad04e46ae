"""Pull a model from the Hub, or find it on this machine, and prove that every byte of it is the Hub's."""

import logging
import os
from collections.abc import Iterable, Sequence
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from huggingface_hub import HfApi, ModelInfo, constants
from huggingface_hub.errors import HfHubHTTPError, HTTPError
from huggingface_hub.utils import validate_repo_id

from hf_transfer.hub.errors import HubError, explain_hub_error, readable_hub_errors
from hf_transfer.hub.retry import PASSING_STATUS, with_retries

logger = logging.getLogger(__name__)

# Copies of the weights for other frameworks, and a Trainer's checkpoints: `from_pretrained` never reads them.
NOT_PULLED = (
    *("*.h5", "*.msgpack", "*.ot", "*.onnx", "onnx/*", "*.gguf", "*.tflite", "openvino*", "*.mlpackage/*", "coreml/*"),
    "checkpoint-*/*",
)
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")


def pull_model(
    repo_id: str | os.PathLike,
    *,
    revision: str | None = None,
    token: str | None = None,
    cache_dir: str | os.PathLike | None = None,
    allow_patterns: Sequence[str] | None = None,
    ignore_patterns: Sequence[str] = NOT_PULLED,
    allow_pickle: bool = False,
) -> Path:
    """Return a local folder that `from_pretrained` can load.

    A folder of that name on this machine wins, as it does in transformers ("flowformer-base" in the working
    directory); then the Hub is asked, and every pulled file is compared with the Hub's checksum (the client itself
    looks at sizes only). A file that differs is removed and pulled once more. Offline, or while the Hub is in
    trouble, the cache answers.

    Args:
        repo_id: a folder, "ORG/NAME", or a bare "NAME".
        revision: branch, tag or commit; default "main".
        token: access token; default is the one of `hf auth login` or HF_TOKEN.
        cache_dir: where pulled models are kept; default HF_HUB_CACHE.
        allow_patterns: pull only these files.
        ignore_patterns: files to leave out; by default copies for other frameworks.
        allow_pickle: also accept a model on the Hub that has no safetensors weights, only pickled ones. Loading a
            pickle runs whatever code its author put there.

    Raises:
        ValueError: a local folder that is no model, or a local folder with a `revision`.
        HubError: the Hub refused, could not be reached, or a file is damaged; the message says what to do.
    """
    local = local_model_folder(repo_id)
    if local is not None:
        if revision is not None:
            raise ValueError(f"`revision` is for the Hub, but {str(repo_id)!r} is a folder on this machine.")
        return local
    wanted = {"revision": revision, "cache_dir": cache_dir, "allow_patterns": allow_patterns}
    with readable_hub_errors("Pulling", str(repo_id)):
        validate_repo_id(repo_id)
        api = HfApi(token=token, library_name="hf_transfer")
        info = _ask_hub(api, repo_id, revision)
        if info is None:
            wanted["ignore_patterns"] = [*ignore_patterns, *PICKLES]
            folder = Path(api.snapshot_download(repo_id, local_files_only=True, **wanted))
            _has_safetensors([path.name for path in folder.iterdir()], repo_id, allow_pickle)
            return folder
        names = [file.rfilename for file in info.siblings or ()]
        needless = PICKLES if _has_safetensors(names, repo_id, allow_pickle) else ()
        return _pull_verified(api, repo_id, ignore_patterns=[*ignore_patterns, *needless], **wanted)


def local_model_folder(name: str | os.PathLike) -> Path | None:
    """The folder `name` stands for on this machine, or None if it names something on the Hub.

    Raises:
        FileNotFoundError: `name` can only be a path (it starts with /, . or ~) and nothing is there.
        ValueError: something is there, but no model.
    """
    path = Path(name).expanduser()
    if path.is_dir():
        if not any((path / file).is_file() for file in ("config.json", "adapter_config.json")):
            raise ValueError(
                f"{path} is a folder without config.json or adapter_config.json: no model was saved there."
            )
        return path
    if path.exists():
        raise ValueError(f"{path} is a file; a model is a folder with config.json and weights.")
    if isinstance(name, os.PathLike) or name.startswith(("/", "./", "../", "~", ".\\", "..\\")):
        raise FileNotFoundError(f"There is no folder {path}.")
    return None


def _ask_hub(api: HfApi, repo_id: str, revision: str | None) -> ModelInfo | None:
    """What the Hub says of the model, or None if it does not answer, so that the cache has to.

    A refusal (401, 403, 404) is an answer, and raised.
    """
    if constants.is_offline_mode():
        return None
    try:
        return with_retries(lambda: api.model_info(repo_id, revision=revision))
    except HTTPError as error:
        if isinstance(error, HfHubHTTPError) and error.response.status_code not in PASSING_STATUS:
            raise
        logger.warning("%s: %s. Looking in the cache.", repo_id, explain_hub_error(error, repo_id))
        return None


def _has_safetensors(names: Iterable[str], repo_id: str, allow_pickle: bool) -> bool:
    names = list(names)
    if any(name.endswith(".safetensors") for name in names):
        return True
    pickled = [name for name in names if any(fnmatch(name, pattern) for pattern in PICKLES)]
    if pickled and not allow_pickle:
        raise HubError(
            f"Pulling {repo_id!r} failed: it only has pickled weights ({pickled[0]}), and loading a pickle runs its "
            "author's code. Pass `allow_pickle=True` if you trust the author."
        )
    return False


def _pull_verified(api: HfApi, repo_id: str, **wanted: Any) -> Path:
    folder = Path(api.snapshot_download(repo_id, **wanted))
    if damaged := _remove_damaged(api, repo_id, folder, wanted["cache_dir"]):
        logger.warning("%s of %s came damaged; pulling again.", ", ".join(damaged), repo_id)
        folder = Path(api.snapshot_download(repo_id, **wanted))
        if damaged := _remove_damaged(api, repo_id, folder, wanted["cache_dir"]):
            raise HubError(
                f"Pulling {repo_id!r} failed: {', '.join(damaged)} came twice with another checksum than the Hub's "
                "and was removed. Something on the way (a proxy, a disk) changes the data, or the upload was broken."
            )
    return folder


def _remove_damaged(api: HfApi, repo_id: str, folder: Path, cache_dir: str | os.PathLike | None) -> list[str]:
    """Compare the pulled files with the Hub's checksums, remove those that differ and return their names."""
    # The snapshot folder is named by its commit, so that a push between the pull and this question does no harm.
    found = with_retries(lambda: api.verify_repo_checksums(repo_id, revision=folder.name, cache_dir=cache_dir))
    damaged = [mismatch["path"] for mismatch in found.mismatches]
    for name in damaged:
        link = folder / name
        # A snapshot holds links to blobs; the blob is what has to go, or the next pull would link to it again.
        blob = link.resolve()
        link.unlink()
        blob.unlink(missing_ok=True)
    return damaged
