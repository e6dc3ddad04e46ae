"""Whether models that read the same batch were saved with processors that make it alike."""

from __future__ import annotations

from typing import Any

from transformers import AutoImageProcessor, AutoTokenizer, PreTrainedTokenizerBase

from hf_transfer.modeling.loading import quiet_loading, stored_processor
from hf_transfer.models.short_names import model_folder

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
        theirs = _saved(AutoTokenizer, source)
        if theirs is not None and theirs.get_vocab() != processor.get_vocab():
            raise ValueError(
                f"`{source}` was saved with another tokenizer ({len(theirs)} tokens) than the model in training reads "
                f"({len(processor)}): the same ids are other words. Take models with the same tokenizer."
            )
    elif hasattr(processor, "image_mean") or hasattr(processor, "do_resize"):
        theirs = _saved(AutoImageProcessor, source)
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
    images = _saved(AutoImageProcessor, source)
    return images if images is not None else _saved(AutoTokenizer, source)


def _saved(loader: type, source: str) -> Any:
    try:
        with quiet_loading():
            return stored_processor(loader, model_folder(source))
    except ValueError:  # whether the model itself is there is seen when it is loaded
        return None


def _plain(value: Any) -> Any:
    """A setting as plain numbers: sizes and means come as lists, tuples or objects of their own."""
    if hasattr(value, "items") or (value is not None and hasattr(value, "__dict__")):
        entries = value.items() if hasattr(value, "items") else vars(value).items()
        return {name: one for name, one in entries if one is not None}
    return list(value) if isinstance(value, (list, tuple)) else value
