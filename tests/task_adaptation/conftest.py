"""A tiny classifier and views of it."""

import pytest
import torch
from transformers import BertConfig, BertForSequenceClassification

from hf_transfer.core.objective import View


@pytest.fixture
def tiny_model():
    """A one-layer BERT classifier of width 8 with 3 labels, without dropout."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=20,
        hidden_size=8,
        num_hidden_layers=1,
        num_attention_heads=2,
        intermediate_size=8,
        max_position_embeddings=12,
        num_labels=3,
        hidden_dropout_prob=0.0,
        attention_probs_dropout_prob=0.0,
    )
    return BertForSequenceClassification(config)


@pytest.fixture
def make_view():
    """make_view(model) -> a View with random features [B, 8], logits [B, 3] and labels [B]."""

    def make(model=None, batch=6, seed=0, **fields):
        generator = torch.Generator().manual_seed(seed)
        return View(
            features=torch.randn(batch, 8, generator=generator).requires_grad_(),
            logits=torch.randn(batch, 3, generator=generator).requires_grad_(),
            labels=torch.randint(3, (batch,), generator=generator),
            model=model,
            **fields,
        )

    return make
