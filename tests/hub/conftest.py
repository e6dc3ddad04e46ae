"""Model folders for the tests of push and pull."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from transformers import BertConfig, BertForSequenceClassification

from hf_transfer.hub import MetricFact, RunFacts, write_card

FACTS = RunFacts(
    model_name="tiny",
    task="text-classification",
    auto_class="AutoModelForSequenceClassification",
    license="apache-2.0",
    metrics=[MetricFact("accuracy", 0.75, "toy")],
)


@pytest.fixture
def tiny_model(tmp_path: Path) -> Path:
    """A real, tiny classifier with its card."""
    torch.manual_seed(0)
    config = BertConfig(
        vocab_size=50, hidden_size=16, num_hidden_layers=1, num_attention_heads=2, intermediate_size=16, num_labels=3
    )
    folder = tmp_path / "tiny"
    BertForSequenceClassification(config).save_pretrained(folder)
    write_card(folder, FACTS)
    return folder


@pytest.fixture(scope="session")
def large_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """30 MB of weights: more than the client reads at once, so that a broken download has something to resume."""
    folder = tmp_path_factory.mktemp("large")
    (folder / "config.json").write_text('{"model_type": "bert"}')
    weights = torch.randn(7_500_000, generator=torch.Generator().manual_seed(0))
    save_file({"weights": weights}, folder / "model.safetensors")
    write_card(folder, FACTS)
    return folder
