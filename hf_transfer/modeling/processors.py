"""The processors that models were saved with, for every command, and whether two of them make the same inputs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import (
    AutoFeatureExtractor,
    AutoImageProcessor,
    AutoProcessor,
    AutoTokenizer,
    PreTrainedTokenizerBase,
    ViTImageProcessorPil,
)

from hf_transfer.modeling.loading import first_line, quiet_loading
from hf_transfer.models.revisions import at_revision

PROCESSORS = {
    "image": AutoImageProcessor,
    "audio": AutoFeatureExtractor,
    "text": AutoTokenizer,
    "words": AutoTokenizer,
    "image_text": AutoProcessor,
}
"""What reads raw columns of each kind; of other kinds rows are inputs already."""
NAMES = {
    "image": "image processor",
    "audio": "feature extractor",
    "text": "tokenizer",
    "words": "tokenizer",
    "image_text": "processor",
}
IMAGE_SETTINGS = (
    "do_resize",
    "size",
    "do_center_crop",
    "crop_size",
    "do_rescale",
    "rescale_factor",
    "do_normalize",
    "image_mean",
    "image_std",
)
"""What of an image processor changes the pixels that a model reads."""


def stored_processor(kind: str, source: str | Path, **options: Any) -> Any:
    """The processor that a model was saved with; a tokenizer has a padding token.

    Args:
        kind: of PROCESSORS.
        source: folder or Hub id of the model.
        options: of its `from_pretrained`.

    Raises:
        ValueError: it was saved without one.
    """
    try:
        processor = PROCESSORS[kind].from_pretrained(str(source), **options)
    except (OSError, ValueError, KeyError, TypeError, ImportError) as error:
        raise ValueError(first_line(error)) from error
    if isinstance(processor, PreTrainedTokenizerBase):
        # transformers makes an empty tokenizer up for a folder without any: every word would be unknown to it.
        if len(processor) <= len(processor.all_special_ids):
            raise ValueError("it was saved without a vocabulary, and every word would be unknown.")
        if processor.pad_token is None:
            processor.pad_token = processor.eos_token or processor.unk_token
    return processor


def whole_pictures(name: str, side: int | None = None) -> ViTImageProcessorPil | None:
    """An image processor with the colours of a model's own, which keeps the whole of every picture; None without one.

    Labels of parts of a picture hold only where nothing is cut away, as processors for classes of pictures do.

    Args:
        name: folder or Hub id, possibly with @REVISION.
        side: height and width in pixels; that of the model's own where it is left out.
    """
    folder, options = at_revision(name)
    try:
        stored = stored_processor("image", folder, **options)
    except ValueError:
        return None
    size = dict(getattr(stored, "crop_size", None) or stored.size)
    side = side or size.get("height") or size.get("shortest_edge") or size.get("longest_edge")
    kept = ("image_mean", "image_std", "do_rescale", "rescale_factor", "do_normalize")
    colours = {name: getattr(stored, name) for name in kept if getattr(stored, name, None) is not None}
    channels = len(colours.get("image_mean", (0, 0, 0)))
    return ViTImageProcessorPil(size={"height": side, "width": side}, do_convert_rgb=channels == 3, **colours)


def load_processor(folder: Path, kind: str, trust_remote_code: bool = False) -> Any:
    """The processor of a local folder for raw columns of `kind`; None when no processor is needed.

    Raises:
        ValueError: the folder has none.
    """
    if kind not in PROCESSORS:
        return None
    try:
        return stored_processor(kind, folder, trust_remote_code=trust_remote_code, local_files_only=True)
    except ValueError as error:
        raise ValueError(f"The model has no {NAMES[kind]} for the {kind} column: {error}") from error


def check_same_processor(source: str, processor: Any) -> None:
    """Refuse a model whose saved processor makes other inputs than the one of the run.

    A model that was saved without a processor is taken as it is.

    Args:
        source: folder, Hub id or packaged name of the model.
        processor: of the run: a tokenizer, an image processor, or something else, which is not compared.

    Raises:
        ValueError: the two differ.
    """
    if isinstance(processor, PreTrainedTokenizerBase):
        theirs = _saved("text", source)
        if theirs is not None and theirs.get_vocab() != processor.get_vocab():
            raise ValueError(
                f"`{source}` was saved with another tokenizer ({len(theirs)} tokens) than the model in training reads "
                f"({len(processor)}): the same ids are other words. Take models with the same tokenizer."
            )
    elif hasattr(processor, "image_mean") or hasattr(processor, "do_resize"):
        theirs = _saved("image", source)
        if theirs is None:
            return
        for name in IMAGE_SETTINGS:
            one, other = (_plain(getattr(each, name, None)) for each in (theirs, processor))
            if one != other:
                raise ValueError(
                    f"`{source}` was saved with an image processor of `{name}` = {one}, and the model in training "
                    f"reads images of `{name}` = {other}: it would see pixels that it was not trained on. Take models "
                    "with the same preprocessing."
                )


def saved_processor(source: str) -> Any:
    """The image processor or the tokenizer that a model was saved with, or None."""
    images = _saved("image", source)
    return images if images is not None else _saved("text", source)


def _saved(kind: str, source: str) -> Any:
    try:
        with quiet_loading():
            folder, stored = at_revision(source)
            return stored_processor(kind, folder, **stored)
    except ValueError:  # whether the model itself is there is seen when it is loaded
        return None


def _plain(value: Any) -> Any:
    """A setting as plain numbers: sizes and means come as lists, tuples or objects of their own."""
    if hasattr(value, "items") or (value is not None and hasattr(value, "__dict__")):
        entries = value.items() if hasattr(value, "items") else vars(value).items()
        return {name: one for name, one in entries if one is not None}
    return list(value) if isinstance(value, (list, tuple)) else value
