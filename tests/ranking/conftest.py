"""A zoo of tiny models, saved once, and data they can read."""

from pathlib import Path

import pytest
import torch
from datasets import Dataset
from PIL import Image
from sklearn.datasets import load_digits
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    GPT2Config,
    GPT2LMHeadModel,
    PreTrainedTokenizerFast,
    ViTConfig,
    ViTForImageClassification,
    ViTImageProcessor,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)

WORDS = ["[PAD]", "[UNK]", "good", "bad", "fine", "awful", "film", "book", "a", "the", "was", "very"]
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 32}
IMAGE = {"image_size": 8, "patch_size": 4, "num_channels": 1}


@pytest.fixture(autouse=True)
def one_thread():
    """Matrices here are tiny: a second thread only waits for the first."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def save_vit(folder: Path, seed: int, **options) -> None:
    torch.manual_seed(seed)
    ViTForImageClassification(ViTConfig(**SMALL, **IMAGE, num_labels=10, **options)).save_pretrained(folder)
    ViTImageProcessor(
        size={"height": 8, "width": 8}, image_mean=[0.5], image_std=[0.5], do_convert_rgb=False
    ).save_pretrained(folder)


def make_tokenizer() -> PreTrainedTokenizerFast:
    tokenizer = Tokenizer(models.WordLevel({word: place for place, word in enumerate(WORDS)}, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> Path:
    """Folders vit0, vit1 (with processor), mae (without), bert (with tokenizer), gpt (no pad token in its config)."""
    root = tmp_path_factory.mktemp("zoo")
    for seed in range(2):
        save_vit(root / f"vit{seed}", seed)
    torch.manual_seed(0)
    decoder = {f"decoder_{name}": value for name, value in SMALL.items()}
    ViTMAEForPreTraining(ViTMAEConfig(**SMALL, **IMAGE, **decoder)).save_pretrained(root / "mae")
    bert = BertConfig(**SMALL, vocab_size=len(WORDS), max_position_embeddings=32, num_labels=3)
    BertForSequenceClassification(bert).save_pretrained(root / "bert")
    make_tokenizer().save_pretrained(root / "bert")
    GPT2LMHeadModel(GPT2Config(vocab_size=len(WORDS), n_embd=16, n_layer=2, n_head=2, n_positions=32)).save_pretrained(
        root / "gpt"
    )
    make_tokenizer().save_pretrained(root / "gpt")
    return root


@pytest.fixture(scope="session")
def digits() -> Dataset:
    """300 real digits as model inputs: `pixel_values` [1, 8, 8] and `labels`."""
    images, labels = load_digits(return_X_y=True)
    pixels = (images[:300] / 8 - 1).reshape(-1, 1, 8, 8).astype("float32")
    return Dataset.from_dict({"pixel_values": pixels, "labels": labels[:300]}).with_format("torch")


@pytest.fixture(scope="session")
def raw_digits() -> Dataset:
    """The same digits as pictures, under `image` and `label`."""
    images, labels = load_digits(return_X_y=True)
    pictures = [Image.fromarray((image.reshape(8, 8) / 16 * 255).astype("uint8")) for image in images[:300]]
    return Dataset.from_dict({"image": pictures, "label": labels[:300]})


@pytest.fixture(scope="session")
def reviews() -> Dataset:
    """60 short texts of different length under `text`, with `label`."""
    texts = ["a good film", "the book was very bad", "fine", "awful film", "a very good book", "the film was bad"] * 10
    return Dataset.from_dict({"text": texts, "label": [1, 0, 1, 0, 1, 0] * 10})
