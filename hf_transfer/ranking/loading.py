"""Load one candidate for ranking: its backbone, its processor, and what there is to say about it."""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from transformers import AutoConfig, AutoImageProcessor, AutoModel, AutoTokenizer

PROCESSORS = {"image": AutoImageProcessor, "text": AutoTokenizer, "words": AutoTokenizer}
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


@dataclass(frozen=True)
class Candidate:
    """A loaded model: `revision` is the commit on the Hub or a fingerprint of the local folder's files."""

    name: str
    folder: Path
    model: nn.Module
    revision: str
    parameters: int


def load_candidate(
    name: str,
    folder: Path,
    *,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> Candidate:
    """Load the backbone (no head) of the model in `folder`.

    Raises:
        ValueError: the checkpoint lacks weights of the backbone, whose features would then be random.
        OSError: no weights, or only pickled ones while `allow_pickle` is False.
    """
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True}
    config = unmasked(AutoConfig.from_pretrained(folder, **options))
    model, report = AutoModel.from_pretrained(
        folder,
        config=config,
        dtype=dtype,
        use_safetensors=None if allow_pickle else True,
        output_loading_info=True,
        **options,
    )
    check_complete(model, report["missing_keys"])
    model = encoder_of(model).eval().requires_grad_(False)
    parameters = sum(parameter.numel() for parameter in model.parameters())
    return Candidate(name, folder, model, revision_of(folder), parameters)


def unmasked(config):
    """A masked-image model hides patches in its own forward; features are wanted of the whole image."""
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    return config


def check_complete(model: nn.Module, missing: Any) -> None:
    """A pooler on top may be missing, for the hidden states do not pass through it; nothing below may."""
    missing = sorted(key for key in missing if "pooler" not in key)
    if missing:
        raise ValueError(
            f"The checkpoint lacks {len(missing)} weights of {type(model).__name__} (such as {missing[0]}); its "
            "features would be random."
        )


def encoder_of(model: nn.Module) -> nn.Module:
    """The encoder of an encoder-decoder, otherwise the model."""
    return model.get_encoder() if getattr(model.config, "is_encoder_decoder", False) else model


def load_processor(folder: Path, kind: str, trust_remote_code: bool = False) -> Any:
    """The processor for raw columns of `kind`; None when the dataset already holds model inputs.

    Raises:
        ValueError: the folder has none.
    """
    if kind == "ready":
        return None
    loader = PROCESSORS[kind]
    try:
        processor = loader.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except (OSError, ValueError, KeyError, TypeError) as error:
        what = "image processor" if kind == "image" else "tokenizer"
        raise ValueError(f"The model has no {what} for the {kind} column: {first_line(error)}") from error
    if kind != "image" and processor.pad_token is None:
        processor.pad_token = processor.eos_token or processor.unk_token
    return processor


def revision_of(folder: Path) -> str:
    """The commit of a Hub snapshot, otherwise a fingerprint of the names, sizes and times of the model's files."""
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(path for path in folder.iterdir() if path.suffix in (*WEIGHTS, ".json"))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]
