"""Load one candidate for ranking: its backbone or head, its processor, and what there is to say about it."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import transformers
from torch import nn
from transformers import (
    AutoConfig,
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoModel,
    AutoTokenizer,
    PreTrainedTokenizerBase,
)
from transformers.utils import logging

from hf_transfer.data.prepare import TIMM
from hf_transfer.modeling.adapters import is_adapter, load_adapted
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification

PROCESSORS = {
    "image": AutoImageProcessor,
    "audio": AutoFeatureExtractor,
    "text": AutoTokenizer,
    "words": AutoTokenizer,
}
NAMES = {"image": "image processor", "audio": "feature extractor", "text": "tokenizer", "words": "tokenizer"}
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
    with quiet_loading():
        if is_adapter(folder):
            model = load_adapted(folder, fetch_base, **options)
            model = model if with_head else model.base_model
        else:
            options["use_safetensors"] = None if allow_pickle else True
            model = load_whole(folder, with_head, options)
    if with_head and getattr(model.config, "problem_type", None) == "multi_label_classification":
        raise ValueError("Its head predicts labels that do not exclude each other; LEEP and NCE read classes.")
    if not with_head and getattr(model.config, "is_encoder_decoder", False):
        model = model.get_encoder()
    return model.eval().requires_grad_(False)


def load_whole(folder: Path, with_head: bool, options: dict[str, Any]) -> nn.Module:
    config = AutoConfig.from_pretrained(
        folder, trust_remote_code=options["trust_remote_code"], local_files_only=options["local_files_only"]
    )
    # A masked-image model hides patches in its own forward; features are wanted of the whole image.
    if hasattr(config, "mask_ratio"):
        config.mask_ratio = 0.0
    loader = head_class(config) if with_head else AutoModel
    model, report = loader.from_pretrained(folder, config=config, output_loading_info=True, **options)
    check_complete(model, report["missing_keys"])
    return model


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


def load_processor(folder: Path, kind: str, trust_remote_code: bool = False) -> Any:
    """The processor for raw columns of `kind`; None when no processor is needed.

    Raises:
        ValueError: the folder has none.
    """
    if kind not in PROCESSORS:
        return None
    try:
        return stored_processor(
            PROCESSORS[kind], str(folder), trust_remote_code=trust_remote_code, local_files_only=True
        )
    except ValueError as error:
        raise ValueError(f"The model has no {NAMES[kind]} for the {kind} column: {error}") from error


def stored_processor(loader: type, source: str, **options: Any) -> Any:
    """The image processor, or the tokenizer with a padding token, that a model was saved with.

    Args:
        loader: AutoImageProcessor, AutoTokenizer or another Auto class of processors.
        source: folder or Hub id of the model.
        options: of its `from_pretrained`.

    Raises:
        ValueError: it was saved without one.
    """
    try:
        processor = loader.from_pretrained(source, **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(first_line(error)) from error
    if isinstance(processor, PreTrainedTokenizerBase):
        # transformers makes an empty tokenizer up for a folder without any: every word would be unknown to it.
        if len(processor) <= len(processor.all_special_ids):
            raise ValueError("it was saved without a vocabulary, and every word would be unknown.")
        if processor.pad_token is None:
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
