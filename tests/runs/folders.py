"""Tiny saved models and small real datasets on the disk, as a user of the command line has them."""

from __future__ import annotations

from functools import cache
from pathlib import Path

import torch
from datasets import Dataset
from transformers import BertForMaskedLM, GPT2LMHeadModel, PreTrainedModel

from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.images import image_processor
from tests import tiny

BOOKS = ["moby dick", "emma", "alice"]
QUICK = ["--max_steps", "2", "--per_device_train_batch_size", "8", "--report_to", "[]", "--use_cpu"]
QUICK += ["--save_strategy", "no", "--diagnostics", "false"]
ARCHITECTURE = {
    "model_type": "flowformer",
    "modality": "image",
    "image_size": 14,
    "patch_size": 7,
    "num_channels": 1,
    "hidden_size": 16,
    "num_hidden_layers": 1,
    "num_attention_heads": 2,
    "intermediate_size": 16,
}


def save_image_model(folder: Path, model: PreTrainedModel, seed: int = 0) -> Path:
    """The model with random weights of this seed and the processor for its images."""
    torch.manual_seed(seed)
    model.init_weights()
    model.save_pretrained(folder)
    image_processor(tiny.IMAGE_SIZE, num_channels=1).save_pretrained(folder)
    return folder


def save_text_model(folder: Path, model: PreTrainedModel, **tokens: str) -> Path:
    """The model and its tokenizer, with more special tokens where they are named."""
    model.save_pretrained(folder)
    tokenizer = tiny.tokenizer()
    if tokens:
        tokenizer.add_special_tokens(tokens)
    tokenizer.save_pretrained(folder)
    return folder


def masked_lm() -> PreTrainedModel:
    return BertForMaskedLM(tiny.bert().config)


def causal_lm() -> PreTrainedModel:
    return GPT2LMHeadModel(tiny.gpt2().config)


@cache
def digits() -> Dataset:
    return optical_digits()


def save_digits(folder: Path, start: int, stop: int) -> Path:
    """Optical digits as `Dataset.save_to_disk` writes them."""
    digits().select(range(start, stop)).save_to_disk(folder)
    return folder


def save_books(path: Path, words: bool = False) -> Path:
    """Sentences and the books they are from, as a file of the kind that the suffix says."""
    labels = [BOOKS[book] if words else book for _, book in tiny.SENTENCES]
    rows = Dataset.from_dict({"text": [text for text, _ in tiny.SENTENCES], "label": labels})
    if path.suffix in (".csv", ".tsv"):
        rows.to_csv(path, index=False, sep="\t" if path.suffix == ".tsv" else ",")
    elif path.suffix == ".parquet":
        rows.to_parquet(path)
    else:
        rows.to_json(path)
    return path


def save_image_folder(folder: Path, places: range) -> Path:
    """Optical digits as pictures in a folder a class."""
    for place, row in zip(places, digits().select(places)):
        (folder / str(row["label"])).mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / str(row["label"]) / f"{place}.png")
    return folder


def fill(root: Path) -> Path:
    """The models and data that the `workshop` fixture names."""
    save_image_model(root / "vit", tiny.vit(), seed=0)
    save_image_model(root / "flow", tiny.flowformer(), seed=1)
    save_image_model(root / "three", tiny.vit(num_labels=3), seed=2)
    save_image_model(root / "headless", tiny.vit().vit)
    save_text_model(root / "bert", tiny.bert())
    save_text_model(root / "gpt2", tiny.gpt2())
    save_digits(root / "digits", 0, 80)
    save_digits(root / "more_digits", 80, 130)
    save_books(root / "books.csv")
    return root
