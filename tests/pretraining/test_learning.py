"""After a short training without labels, a linear probe on the frozen features beats the one on random weights.

The model has no batch norms: their running statistics alone, without any learning, would lift the features of random
weights.
"""

import pytest
import torch
import torch.nn.functional as F
from transformers import ConvNextConfig, ConvNextModel

from hf_transfer.data.bundled import load
from hf_transfer.data.images import with_pixel_values
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig

SIZES = {"patch_size": 2, "num_stages": 2, "hidden_sizes": [16, 32], "depths": [1, 1], "layer_scale_init_value": 1.0}
OBJECTIVES = {
    "simclr": {"temperature": 0.5, "projection_dim": 16},
    "lejepa": {"hidden_size": 64, "projection_dim": 16, "directions": 64},
}
TRAINED, STEPS = 600, 60


@pytest.fixture(scope="module")
def rows():
    """1,000 digits of MNIST at 20 pixels."""
    return with_pixel_values(load("mnist5k").shuffle(seed=0).select(range(1000)), 20, num_channels=1)


def backbone():
    torch.manual_seed(0)
    return ConvNextModel(ConvNextConfig(**SIZES, num_channels=1))


@torch.no_grad()
def probe(model, rows) -> float:
    """Accuracy of ridge regression from the frozen features, fitted on the rows that were trained on."""
    batch = rows[:]
    features = model.eval()(pixel_values=batch["pixel_values"]).pooler_output
    deviation, mean = torch.std_mean(features[:TRAINED], dim=0)
    features, labels = (features - mean) / (deviation + 1e-6), batch["labels"]
    known, targets = features[:TRAINED], F.one_hot(labels[:TRAINED], 10) - 0.1
    weights = torch.linalg.solve(known.T @ known + 10 * torch.eye(known.shape[1]), known.T @ targets)
    return ((features[TRAINED:] @ weights).argmax(dim=1) == labels[TRAINED:]).float().mean().item()


@pytest.mark.slow
@pytest.mark.parametrize("name", OBJECTIVES)
def test_features_become_better_than_those_of_random_weights(name, rows, tmp_path):
    model = backbone()
    before = probe(model, rows)
    args = TransferConfig(
        str(tmp_path),
        augmentation={"views": "small", "flip": False, "crop": 0.5},
        max_steps=STEPS,
        per_device_train_batch_size=64,
        learning_rate=3e-3,
        lr_scheduler_type="cosine",
        dataloader_drop_last=True,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        seed=0,
    )
    unlabelled = rows.remove_columns("labels").select(range(TRAINED))
    PretrainingTrainer(model, args, objectives={name: OBJECTIVES[name]}, train_dataset=unlabelled).train()
    assert probe(model, rows) > before + 0.04
