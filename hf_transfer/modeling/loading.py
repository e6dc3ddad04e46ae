"""Load a model as it was saved, whole: to rank it, or for a method that draws on it.

What is missing in the folder is refused, for features of random weights would look like any others. A run that trains
a model loads it by `hf_transfer.runs.models.load_model` instead: its task says which head the model gets, weights of
that head may be new, and an adapter stays one.
"""

from __future__ import annotations

import hashlib
import inspect
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import logging

from hf_transfer.data.prepare import TIMM
from hf_transfer.modeling.adapters import is_adapter, load_adapted
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification

HEADS = (
    "ForImageClassification",
    "ForSequenceClassification",
    "ForTokenClassification",
    "ForAudioClassification",
    "ForVideoClassification",
)
WEIGHTS = (".safetensors", ".bin", ".pt", ".pth")


def load_model(
    folder: Path,
    fetch_base: Callable[[str], Path],
    *,
    with_head: bool = False,
    dtype: str = "float32",
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
) -> nn.Module:
    """The frozen backbone of the model or adapter in `folder`, or the model with its classification head.

    Args:
        folder: a local folder.
        fetch_base: gives the folder of an adapter's base model.
        with_head: load the classification head too.
        dtype: of the weights.
        trust_remote_code, allow_pickle: run code, or load pickled weights, of strangers.

    Raises:
        ValueError: the checkpoint lacks weights (its features would be random), or a head where one is asked for.
        OSError: no weights, or only pickled ones while `allow_pickle` is False.
    """
    options = {"trust_remote_code": trust_remote_code, "local_files_only": True, "dtype": dtype}
    if is_adapter(folder):
        with quiet_loading():
            model = load_adapted(folder, fetch_base, **options)
        model = model if with_head else model.base_model
    else:
        config = saved_config(folder, trust_remote_code)
        options["use_safetensors"] = None if allow_pickle else True
        model = load_complete(loader_of(config, with_head), folder, config=config, **options)
    if with_head and getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise ValueError("Its head predicts labels that do not exclude each other; LEEP and NCE read classes.")
    return frozen(model, with_head)


def load_complete(loader: Any, source: str | Path, **options: Any) -> nn.Module:
    """What a class of models, or an Auto class, loads from a folder or the Hub, quietly.

    Args:
        loader: the class.
        source: folder or Hub id.
        options: of its `from_pretrained`.

    Raises:
        ValueError: weights are missing.
        OSError: no model is there.
    """
    with quiet_loading():
        model, report = loader.from_pretrained(source, output_loading_info=True, **options)
    check_complete(model, report["missing_keys"])
    return model


def saved_config(folder: Path, trust_remote_code: bool) -> PreTrainedConfig:
    """The configuration of a folder, by which a model of masked images sees the whole image."""
    config = AutoConfig.from_pretrained(folder, trust_remote_code=trust_remote_code, local_files_only=True)
    # such a model hides patches in its own forward
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    return config


def loader_of(config: PreTrainedConfig, with_head: bool) -> Any:
    """The Auto class of the backbone, or of the head that the checkpoint was saved with. Raises as `head_class`."""
    return head_class(config) if with_head else AutoModel


def frozen(model: nn.Module, with_head: bool) -> nn.Module:
    """The model, or without its head the encoder of one that has a decoder, as it is ranked.

    That of a detector (DETR, RT-DETR) reads what a backbone gives: such a model is ranked whole.
    """
    if not with_head and getattr(model.config, "is_encoder_decoder", False):
        encoder = model.get_encoder()
        if model.main_input_name in inspect.signature(encoder.forward).parameters:
            model = encoder
    return model.eval().requires_grad_(False)


def head_class(config: Any) -> type:
    """The Auto class of the head that the checkpoint was saved with.

    Raises:
        ValueError: it was saved without a classification head.
    """
    if config.model_type == TIMM and config.num_labels > 0:
        # timm saves no name of a class.
        return transformers.AutoModelForImageClassification
    saved = (getattr(config, "architectures", None) or [""])[0]
    if saved == FlowformerForTimeSeriesClassification.__name__:
        # transformers has no Auto class for series.
        return FlowformerForTimeSeriesClassification
    of_sounds = transformers.AutoModelForAudioClassification
    if type(config) in of_sounds._model_mapping and saved.endswith("Classification"):
        return of_sounds  # that of Wav2Vec2 is called as if its rows were texts
    for ending in HEADS:
        loader = getattr(transformers, f"AutoModel{ending}")
        # the class of a model of several, such as Ensemble, has no ending
        registered = loader._model_mapping.get(type(config), None)
        if saved.endswith(ending) or getattr(registered, "__name__", None) == saved:
            return loader
    raise ValueError(
        f"It was saved as {saved or 'a bare model'}, without the classification head that this score reads."
    )


def check_complete(model: nn.Module, missing: Any) -> None:
    """A pooler on top may be missing, for the hidden states do not pass through it; nothing below may."""
    missing = sorted(key for key in missing if "pooler" not in key)
    if missing:
        raise ValueError(
            f"The checkpoint lacks {len(missing)} weights of {type(model).__name__} (such as {missing[0]}); its "
            "features would be random."
        )


def tower_of(model: nn.Module, inputs: set[str], kind: str) -> nn.Module:
    """Of a model with an image and a text tower, the one that reads the given inputs; otherwise the model."""
    if not (hasattr(model, "vision_model") and hasattr(model, "text_model")):
        return model
    return model.vision_model if kind == "image" or "pixel_values" in inputs else model.text_model


def revision_of(folder: Path) -> str:
    """The commit of a Hub snapshot, otherwise a fingerprint of the names, sizes and times of the model's files."""
    if folder.parent.name == "snapshots":
        return folder.name
    files = sorted(path for path in folder.iterdir() if path.suffix in (*WEIGHTS, ".json"))
    facts = [(path.name, path.stat().st_size, path.stat().st_mtime_ns) for path in files]
    return hashlib.sha256(json.dumps(facts).encode()).hexdigest()[:40]


def first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


@contextmanager
def quiet_loading() -> Iterator[None]:
    """Keep transformers from reporting each candidate's missing head: `check_complete` judges what is missing."""
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
