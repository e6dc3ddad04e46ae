"""A tiny model with two towers, and pictures of digits with captions for it."""

from __future__ import annotations

import torch
from datasets import ClassLabel, Dataset, Features, Image, Value
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    CLIPConfig,
    CLIPModel,
    PreTrainedTokenizerFast,
    SiglipConfig,
    SiglipModel,
    VisionTextDualEncoderConfig,
    VisionTextDualEncoderModel,
    VisionTextDualEncoderProcessor,
    ViTConfig,
)

from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.captions import ending_texts
from hf_transfer.data.images import image_processor
from tests import tiny

NAMES = ["zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine"]
PHRASES = ["a drawing of {}", "the number {}", "this is {}"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
PIXELS = {"image_size": tiny.IMAGE_SIZE, "patch_size": 7, "num_channels": 1}
TEXT = {"vocab_size": 60, "max_position_embeddings": 12}


def dual_encoder(seed: int = 0, **config) -> VisionTextDualEncoderModel:
    """A ViT and a BERT, without dropout."""
    torch.manual_seed(seed)
    bert = BertConfig(**SMALL, **TEXT, hidden_dropout_prob=0.0, attention_probs_dropout_prob=0.0)
    config = {"projection_dim": 8, **config}
    return VisionTextDualEncoderModel(
        VisionTextDualEncoderConfig.from_vision_text_configs(ViTConfig(**SMALL, **PIXELS), bert, **config)
    )


def clip(seed: int = 0) -> CLIPModel:
    torch.manual_seed(seed)
    text = {**SMALL, **TEXT, "eos_token_id": 3, "bos_token_id": 1, "pad_token_id": 0}
    return CLIPModel(CLIPConfig(text_config=text, vision_config={**SMALL, **PIXELS}, projection_dim=8))


def siglip(seed: int = 0) -> SiglipModel:
    torch.manual_seed(seed)
    text = {**SMALL, **TEXT, "projection_size": 16, "pad_token_id": 0}
    return SiglipModel(SiglipConfig(text_config=text, vision_config={**SMALL, **PIXELS}))


MODELS = {"dual_encoder": dual_encoder, "clip": clip, "siglip": siglip}


def batch_of(rows: int = 6, seed: int = 0) -> dict[str, torch.Tensor]:
    """Random pictures and texts of different lengths."""
    generator = torch.Generator().manual_seed(seed)
    mask = (torch.arange(8) < torch.randint(3, 9, (rows, 1), generator=generator)).long()
    ids = torch.randint(4, 60, (rows, 8), generator=generator) * mask
    ids[torch.arange(rows), mask.sum(1) - 1] = 3
    pixels = torch.randn(rows, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, generator=generator)
    return {"pixel_values": pixels, "input_ids": ids, "attention_mask": mask}


def tokenizer() -> PreTrainedTokenizerFast:
    """Of the words of the captions, with an end token (3) behind every text."""
    words = sorted({word for text in (*PHRASES, *NAMES) for word in text.split()} - {"{}"})
    words = ["[PAD]", "[UNK]", "[MASK]", "[END]", *words]
    backend = Tokenizer(WordLevel({word: place for place, word in enumerate(words)}, unk_token="[UNK]"))
    backend.pre_tokenizer = Whitespace()
    return ending_texts(
        PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]", eos_token="[END]")
    )


def processor() -> VisionTextDualEncoderProcessor:
    return VisionTextDualEncoderProcessor(image_processor(tiny.IMAGE_SIZE, num_channels=1), tokenizer())


def caption(digit: int, row: int) -> str:
    return PHRASES[row % len(PHRASES)].format(NAMES[digit])


def captioned(start: int = 0, stop: int = 40, labelled: bool = False) -> Dataset:
    """Pictures of digits and their captions, and the digit as `label` where asked for."""
    digits = optical_digits().select(range(start, stop))
    rows = {"image": digits["image"], "caption": [caption(d, row) for row, d in enumerate(digits["label"])]}
    features = {"image": Image(), "caption": Value("string")}
    if labelled:
        rows["label"], features["label"] = digits["label"], ClassLabel(names=NAMES)
    return Dataset.from_dict(rows, features=Features(features))
