"""A model with an image and a text tower as a classifier: the texts of the classes are its head.

    logit of class c for an image = s cos(image, text "a photo of a NAME."),   s the model's own scale

The texts are read once: their tokens are kept in the model's configuration, and `ClassTexts` gives them to the model
beside every batch of images. The prompt is kept in the tokenizer's settings too, which adapters are saved with.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from tokenizers import AddedToken
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedTokenizerBase

from hf_transfer.core.problem_types import are_made_up
from hf_transfer.core.readout import Readout, Units, rows_of
from hf_transfer.data.captions import caption_tokens
from hf_transfer.modeling.anatomy import unwrap_peft

USUAL_PROMPT = "a photo of a {}."
TEXTS, PROMPT, CONTEXT = "class_texts", "class_prompt", "context_tokens"
"""Attributes of a configuration: tokens of the classes, the text around a name, and words of it that are learnt."""


def has_class_names(config: PreTrainedConfig) -> bool:
    """Whether a model's classes have names of their own."""
    return not are_made_up(_names(config))


def _names(config: PreTrainedConfig) -> list[str]:
    return [str(config.id2label[place]) for place in sorted(config.id2label)]


def class_names_of(config: PreTrainedConfig) -> list[str]:
    """The names of a model's classes in the order of its outputs.

    Raises:
        ValueError: they have none.
    """
    names = _names(config)
    if are_made_up(names):
        raise ValueError(
            "the classes have no names, so that no text says what they are: use words as labels, or "
            'dataset.cast_column("label", datasets.ClassLabel(names=[...])).'
        )
    return names


def prompt_of(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> str:
    """The text with a `{}` for the name of a class: the model's, that its tokenizer was saved with, or the usual."""
    return getattr(config, PROMPT, None) or tokenizer.init_kwargs.get(PROMPT) or USUAL_PROMPT


def add_words(tokenizer: PreTrainedTokenizerBase, words: list[str]) -> None:
    """Have a tokenizer read entries of its vocabulary as words of a text, whatever letters they are made of."""
    tokenizer.add_tokens([AddedToken(word, lstrip=True, normalized=False) for word in words])


def read_class_texts(config: PreTrainedConfig, tokenizer: PreTrainedTokenizerBase) -> None:
    """Write the tokens of the texts of all classes, [C, T] each, into a configuration, and the prompt into the
    tokenizer's settings.

    Args:
        config: of a model with two towers, with the names of its classes.
        tokenizer: of its text tower.

    Raises:
        ValueError: the classes have no names, or as `caption_tokens`.
    """
    prompt = prompt_of(config, tokenizer)
    add_words(tokenizer, getattr(config, CONTEXT, []))
    tokenizer.init_kwargs[PROMPT] = prompt
    texts = [prompt.format(name) for name in class_names_of(config)]
    padded = tokenizer.pad(caption_tokens(texts, tokenizer, config))
    setattr(config, TEXTS, {name: [list(row) for row in rows] for name, rows in padded.items()})


class ClassTexts(Readout):
    """Features [B, D] are the embeddings of images, logits [B, C] their scaled cosines with the texts of the classes.
    Units are the rows."""

    def find(self, model: nn.Module) -> None:
        config = unwrap_peft(model).config
        self.model = model
        self.texts = {name: torch.tensor(rows) for name, rows in getattr(config, TEXTS).items()}
        self.num_outputs = len(self.texts["input_ids"])
        self.feature_dim = getattr(config, "projection_dim", None) or config.vision_config.hidden_size

    def __enter__(self) -> ClassTexts:
        self.handle = self.model.register_forward_pre_hook(self._with_texts, with_kwargs=True)
        return self

    def __exit__(self, *exception: Any) -> None:
        self.handle.remove()

    def _with_texts(self, module: nn.Module, inputs: tuple, keywords: dict[str, Any]) -> tuple[tuple, dict[str, Any]]:
        device = keywords["pixel_values"].device
        self.texts = {name: rows.to(device) for name, rows in self.texts.items()}
        return inputs, {**keywords, **self.texts}

    def read(self, outputs: Mapping[str, Any], batch: Mapping[str, Tensor]) -> Units:
        features, logits = outputs["image_embeds"].float(), outputs["logits_per_image"].float()
        return Units(features, logits, batch.get("labels"), rows_of(batch))
