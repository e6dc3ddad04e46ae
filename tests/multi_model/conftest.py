"""Saved teachers, and trainings that a method is tried in."""

import pytest
import torch
from transformers import ViTForImageClassification, default_data_collator

from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


@pytest.fixture(scope="session")
def zoo(tmp_path_factory) -> dict[str, str]:
    """Folders of image classifiers of ten classes by name: two ViTs, a wider one, and a ResNet."""
    root = tmp_path_factory.mktemp("zoo")
    wide = {"hidden_size": 24, "initializer_range": 0.3}
    makers = {
        "first": lambda: tiny.vit(initializer_range=0.3),
        "second": lambda: tiny.vit(initializer_range=0.3),
        "wide": lambda: vit_of(wide),
        "resnet": tiny.resnet,
    }
    for seed, (name, make) in enumerate(makers.items(), start=1):
        torch.manual_seed(seed)
        make().save_pretrained(root / name)
    return {name: str(root / name) for name in makers}


def vit_of(changes: dict) -> ViTForImageClassification:
    """A tiny ViT with other sizes."""
    config = tiny.vit().config
    for name, value in changes.items():
        setattr(config, name, value)
    return ViTForImageClassification(config)


@pytest.fixture
def train(digits, tmp_path):
    """train(objectives, ...) -> the trainer of a few steps on 24 real digits, not yet trained."""

    def make(objectives, model=None, steps=4, rows=None, **changes):
        torch.manual_seed(0)
        fields = {"max_steps": steps, "per_device_train_batch_size": 8, "learning_rate": 1e-2, "save_strategy": "no"}
        fields |= {"report_to": [], "disable_tqdm": True, "use_cpu": True, "logging_steps": 1, "optim": "sgd"}
        args = TransferConfig(changes.pop("output_dir", str(tmp_path / "run")), **{**fields, **changes})
        return TransferTrainer(
            model or tiny.vit(initializer_range=0.3),
            args,
            objectives=objectives,
            train_dataset=digits.select(range(24)) if rows is None else rows,
            data_collator=default_data_collator,
        )

    return make


def end_of(trainer) -> dict[str, torch.Tensor]:
    """The weights of the model in training, after it."""
    trainer.train()
    return {name: value.clone() for name, value in trainer.adapted_model.state_dict().items()}
