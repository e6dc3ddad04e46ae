"""Tiny models made from their configs, and small real data, for tests that train in a fraction of a second."""

from __future__ import annotations

import torch
from datasets import Dataset
from peft import LoraConfig, PeftModel, get_peft_model
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from tokenizers.pre_tokenizers import Whitespace
from transformers import (
    BertConfig,
    BertForSequenceClassification,
    ConvNextConfig,
    ConvNextForImageClassification,
    EfficientNetConfig,
    EfficientNetForImageClassification,
    GPT2Config,
    GPT2ForSequenceClassification,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedModel,
    PreTrainedTokenizerFast,
    ResNetConfig,
    ResNetForImageClassification,
    ViTConfig,
    ViTForImageClassification,
)

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.images import with_pixel_values

IMAGE_SIZE = 14
MOBY_DICK, EMMA, ALICE = 0, 1, 2
SENTENCES = [
    ("Call me Ishmael.", MOBY_DICK),
    ("It is a way I have of driving off the spleen and regulating the circulation.", MOBY_DICK),
    ("This is my substitute for pistol and ball.", MOBY_DICK),
    ("There is nothing surprising in this.", MOBY_DICK),
    ("Circumambulate the city of a dreamy Sabbath afternoon.", MOBY_DICK),
    ("What do you see?", MOBY_DICK),
    ("Are the green fields gone? What do they here?", MOBY_DICK),
    ("Strange! Nothing will content them but the extremest limit of the land.", MOBY_DICK),
    ("She was the youngest of the two daughters of a most affectionate, indulgent father.", EMMA),
    ("Sixteen years had Miss Taylor been in the family.", EMMA),
    ("Sorrow came, a gentle sorrow.", EMMA),
    ("Miss Taylor married.", EMMA),
    ("It was Miss Taylor's loss which first brought grief.", EMMA),
    ("How was she to bear the change?", EMMA),
    ("She dearly loved her father, but he was no companion for her.", EMMA),
    ("He could not meet her in conversation, rational or playful.", EMMA),
    ("There was nothing so very remarkable in that.", ALICE),
    ("In another moment down went Alice after it.", ALICE),
    ("Down, down, down.", ALICE),
    ("Would the fall never come to an end?", ALICE),
    ("I must be getting somewhere near the centre of the earth.", ALICE),
    ("Dinah, my dear! I wish you were down here with me!", ALICE),
    ("Do cats eat bats?", ALICE),
    ("Oh, how I wish I could shut up like a telescope!", ALICE),
]
"""Sentences from the first chapters of three books, and which book."""


def bert(num_labels: int = 3, **config) -> BertForSequenceClassification:
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, **config}
    return BertForSequenceClassification(
        BertConfig(
            vocab_size=200,
            hidden_size=16,
            num_hidden_layers=2,
            num_attention_heads=2,
            intermediate_size=16,
            max_position_embeddings=32,
            num_labels=num_labels,
            **config,
        )
    )


def gpt2(num_labels: int = 3, **config) -> GPT2ForSequenceClassification:
    sizes = {"vocab_size": 200, "n_embd": 16, "n_layer": 2, "n_head": 2, "n_positions": 32}
    dropout = {"resid_pdrop": 0.0, "embd_pdrop": 0.0, "attn_pdrop": 0.0}
    tokens = {"pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    return GPT2ForSequenceClassification(GPT2Config(**sizes, **dropout, **tokens, num_labels=num_labels, **config))


def llama(num_labels: int = 3, **config) -> LlamaForSequenceClassification:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    tokens = {"vocab_size": 200, "pad_token_id": 0, "bos_token_id": None, "eos_token_id": None}
    return LlamaForSequenceClassification(LlamaConfig(**sizes, **tokens, num_labels=num_labels, **config))


def vit(num_labels: int = 10, **config) -> ViTForImageClassification:
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    pixels = {"image_size": IMAGE_SIZE, "patch_size": 7, "num_channels": 1}
    return ViTForImageClassification(ViTConfig(**sizes, **pixels, num_labels=num_labels, **config))


def resnet(num_labels: int = 10) -> ResNetForImageClassification:
    sizes = {"embedding_size": 8, "hidden_sizes": [8, 16], "depths": [1, 1], "layer_type": "basic"}
    return ResNetForImageClassification(ResNetConfig(**sizes, num_channels=1, num_labels=num_labels))


def convnext(num_labels: int = 10) -> ConvNextForImageClassification:
    sizes = {"patch_size": 2, "num_stages": 2, "hidden_sizes": [8, 16], "depths": [1, 1]}
    return ConvNextForImageClassification(ConvNextConfig(**sizes, num_channels=1, num_labels=num_labels))


def efficientnet(num_labels: int = 10) -> EfficientNetForImageClassification:
    sizes = {"width_coefficient": 0.25, "depth_coefficient": 0.2, "hidden_dim": 320, "depth_divisor": 4}
    sizes |= {"image_size": IMAGE_SIZE, "batch_norm_momentum": 0.1, "depthwise_padding": list(range(16))}
    return EfficientNetForImageClassification(EfficientNetConfig(**sizes, num_channels=1, num_labels=num_labels))


def flowformer(num_labels: int = 10, **config) -> PreTrainedModel:
    from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForImageClassification

    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
    pixels = {"modality": "image", "image_size": IMAGE_SIZE, "patch_size": 7, "num_channels": 1}
    return FlowformerForImageClassification(FlowformerConfig(**sizes, **pixels, num_labels=num_labels, **config))


TEXT_MODELS = {"bert": bert, "gpt2": gpt2, "llama": llama}
IMAGE_MODELS = {"vit": vit, "resnet": resnet, "convnext": convnext, "flowformer": flowformer}


def with_lora(model: PreTrainedModel, head: str = "classifier", adapter_name: str = "default", **config) -> PeftModel:
    """The model with LoRA on every attention's queries and values, and a fully trained head."""
    names = {module.rsplit(".", 1)[-1] for module, _ in model.named_modules()}
    known = [{"query", "value"}, {"q_proj", "v_proj"}, {"c_attn"}]
    targets = next((sorted(candidate) for candidate in known if candidate <= names), None)
    config = {"target_modules": targets, "modules_to_save": [head], "r": 2, "lora_alpha": 4, **config}
    return get_peft_model(model, LoraConfig(**config), adapter_name=adapter_name)


def tokenizer() -> PreTrainedTokenizerFast:
    """A word-level tokenizer of the words of `SENTENCES`."""
    split = Whitespace()
    words = sorted({word for text, _ in SENTENCES for word, _ in split.pre_tokenize_str(text)})
    model = WordLevel({word: place for place, word in enumerate(["[PAD]", "[UNK]", *words])}, unk_token="[UNK]")
    backend = Tokenizer(model)
    backend.pre_tokenizer = split
    return PreTrainedTokenizerFast(tokenizer_object=backend, pad_token="[PAD]", unk_token="[UNK]")


def text_rows(length: int = 20, padding_side: str = "right") -> Dataset:
    """`SENTENCES` as `input_ids`, `attention_mask` and `labels` (which book), padded alike; read as tensors."""
    reader = tokenizer()
    reader.padding_side = padding_side
    encoded = reader([text for text, _ in SENTENCES], padding="max_length", max_length=length, truncation=True)
    columns = {"input_ids": encoded["input_ids"], "attention_mask": encoded["attention_mask"]}
    return Dataset.from_dict({**columns, "labels": [book for _, book in SENTENCES]}).with_format("torch")


def digit_rows(start: int, stop: int) -> Dataset:
    """Optical digits as `pixel_values` [1, 14, 14] and `labels`; read as tensors."""
    return with_pixel_values(optical_digits().select(range(start, stop)), IMAGE_SIZE, num_channels=1)


def with_column(dataset: Dataset, name: str, values: list) -> Dataset:
    """The dataset with one column put in or replaced, read as before."""
    plain = dataset.with_format(None)
    plain = plain.remove_columns(name) if name in plain.column_names else plain
    form = dataset.format
    return plain.add_column(name, values).with_format(form["type"], **form["format_kwargs"])


def two_domains(rows: Dataset) -> Dataset:
    """The first half as the labelled source, the second half as the unlabelled target."""
    half = len(rows) // 2
    labels = list(rows.with_format(None)["labels"])
    unknown = [IGNORED_LABEL] * len(labels[0]) if isinstance(labels[0], list) else IGNORED_LABEL
    labels = labels[:half] + [unknown] * (len(rows) - half)
    return with_column(with_column(rows, "labels", labels), "domain", [0] * half + [1] * (len(rows) - half))


def batch_of(rows: Dataset, count: int = 8) -> dict[str, torch.Tensor]:
    """The first rows as one batch of tensors."""
    batch = rows[:count]
    return {name: torch.as_tensor(values) for name, values in batch.items()}
