"""An evaluation set with two domains."""

import pytest
import torch


@pytest.fixture
def evaluation_set():
    """(features [40, 5], logits [40, 3], domain [40], labels [40]): the first 24 rows are the source."""
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(3, (40,), generator=generator)
    domain = (torch.arange(40) >= 24).long()
    features = torch.randn(40, 5, generator=generator) + labels.unsqueeze(1)
    logits = torch.randn(40, 3, generator=generator)
    return features, logits, domain, labels
