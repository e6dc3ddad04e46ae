"""Batches with two domains, and the sine inputs on which published values are known."""

from dataclasses import replace

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import BertConfig, BertForSequenceClassification

from hf_transfer.core.objective import IGNORED_LABEL, View


@pytest.fixture
def make_view():
    """make_view(num_source, num_target, ...) -> a View of random features and logits that require gradients."""

    def make(num_source=6, num_target=5, feature_dim=7, num_labels=4, progress=0.5, seed=0, dtype=torch.float32):
        generator = torch.Generator().manual_seed(seed)
        rows = num_source + num_target
        labels = torch.randint(num_labels, (rows,), generator=generator)
        labels[num_source:] = IGNORED_LABEL
        order = torch.randperm(rows, generator=generator)
        domain = (torch.arange(rows) >= num_source).long()
        return View(
            features=torch.randn(rows, feature_dim, generator=generator, dtype=dtype).requires_grad_(),
            logits=torch.randn(rows, num_labels, generator=generator, dtype=dtype).requires_grad_(),
            labels=labels[order],
            domain=domain[order],
            progress=progress,
        )

    return make


@pytest.fixture
def sources(make_view):
    """sources(...) -> a View of eleven labelled rows of three environments."""
    environment = torch.tensor([0, 1, 2, 0, 1, 2, 0, 1, 2, 2, 2])
    return lambda **kwargs: replace(make_view(11, 0, **kwargs), domain=environment)


@pytest.fixture
def sines():
    """The reference inputs: features f_s, f_t [4, 3] and logits y, ya, yt, yta [5, 4], float64."""
    steps = torch.arange(20, dtype=torch.float64)
    return {
        "f_s": steps[:12].sin().reshape(4, 3),
        "f_t": steps[:12].cos().reshape(4, 3),
        "y": steps.sin().reshape(5, 4),
        "ya": steps.cos().reshape(5, 4),
        "yt": (0.5 * steps).sin().reshape(5, 4),
        "yta": (0.5 * steps).cos().reshape(5, 4),
    }


@pytest.fixture
def tiny_model():
    """A one-layer BERT classifier of width 8 with 4 labels, without dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
        num_labels=4,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


@pytest.fixture
def make_view_pair(make_view):
    """make_view_pair(...) -> a View whose `views` holds second copies with other features and logits."""

    def make(*args, **kwargs):
        first, second = make_view(*args, **kwargs), make_view(*args, **{**kwargs, "seed": 7})
        return replace(first, views=(replace(second, domain=first.domain, labels=first.labels),))

    return make


@pytest.fixture
def lora_on_the_head(tiny_model):
    """`tiny_model` with a LoRA on its classifier that has moved."""
    config = LoraConfig(target_modules=["query", "classifier"], r=2)
    model = get_peft_model(tiny_model, config)
    torch.nn.init.normal_(tiny_model.classifier.lora_B["default"].weight)
    return model
