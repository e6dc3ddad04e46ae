"""ViTMAE beside ViT: transformers' masked autoencoder in the Auto class of its task, and its encoder as a classifier.

transformers has ViTMAEForPreTraining, whose encoder sees visible patches alone, but neither Auto class knows it.
"""

from __future__ import annotations

from transformers import (
    AutoModelForImageClassification,
    AutoModelForMaskedImageModeling,
    ViTConfig,
    ViTForImageClassification,
    ViTMAEConfig,
    ViTMAEForPreTraining,
)


class ViTMAEForImageClassification(ViTForImageClassification):
    """A ViT with the encoder of a masked autoencoder and a new head; it is saved as an ordinary ViT.

    Args:
        config: of the masked autoencoder, or a ViT's.
    """

    config_class = ViTMAEConfig

    def __init__(self, config: ViTMAEConfig | ViTConfig):
        super().__init__(as_vit(config))
        self.__class__ = ViTForImageClassification


def as_vit(config: ViTMAEConfig | ViTConfig) -> ViTConfig:
    """The configuration of the encoder alone."""
    known = ViTConfig().to_dict()
    fields = {name: value for name, value in config.to_dict().items() if name in known and name != "model_type"}
    return ViTConfig.from_dict(fields)


def register_vit_mae() -> None:
    """Tell the Auto classes; calling it again changes nothing."""
    AutoModelForMaskedImageModeling.register(ViTMAEConfig, ViTMAEForPreTraining, exist_ok=True)
    AutoModelForImageClassification.register(ViTMAEConfig, ViTMAEForImageClassification, exist_ok=True)
