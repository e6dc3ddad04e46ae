"""Models with an image and a text tower whose weights come from two models: transformers' VisionTextDualEncoderModel.

What reads images alone can have the image tower by itself, under a new linear head: `image_classifier`.
The configuration of a tower may be a name in place of its fields: `vision_config: google/vit-base-patch16-224`.
"""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from typing import Any

import torch
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel

from hf_transfer.modeling.anatomy import backbone_of
from hf_transfer.modeling.named_backbones import BACKBONE
from hf_transfer.models.picture_width import outputs_of_a_picture
from hf_transfer.models.revisions import at_revision
from hf_transfer.models.short_names import model_folder

DUAL_ENCODER = "vision-text-dual-encoder"
TOWERS = {"vision_config": "vision_model", "text_config": "text_model"}
"""Field of the configuration -> module, as transformers calls them."""
PARTS = {**TOWERS, BACKBONE: "backbone"}
"""Those that may be the name of a model."""


def named_parts(settings: Mapping[str, Any]) -> dict[str, str]:
    """The towers or the backbone of an architecture that start from a model, and the folder or Hub id of it.

    Raises:
        ValueError: a part is neither a name nor a mapping of fields.
    """
    for part in PARTS:
        if not isinstance(settings.get(part, {}), str | Mapping):
            raise ValueError(
                f"`architecture`: {part} should be a mapping of fields or the name of a model, got {settings[part]!r}."
            )
    return {part: model_folder(settings[part]) for part in PARTS if isinstance(settings.get(part), str)}


def tower_config(name: str, part: str) -> PreTrainedConfig:
    """The configuration of a tower: that of a model, or its part where the model has two towers itself.

    Args:
        name: folder or Hub id.
        part: `vision_config` or `text_config`.

    Raises:
        ValueError: there is no such model.
    """
    try:
        folder, stored = at_revision(name)
        config = AutoConfig.from_pretrained(folder, **stored)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"`architecture`: cannot load `{name}` as {part}: {error}") from error
    return getattr(config, part, config)


def settle_width(config: PreTrainedConfig, part: str) -> None:
    """Have the configuration of a tower say how wide it is, as a VisionTextDualEncoderModel reads it: `hidden_size`.

    Args:
        config: of the tower; that of a convolutional net gets the field, with which it is saved.
        part: `vision_config` or `text_config`.

    Raises:
        ValueError: the tower does not make one vector of an image or a text.
    """
    if hasattr(config, "hidden_size"):
        return
    width = pooled_width(config) if part == "vision_config" else None
    if width is None:
        raise ValueError(
            f"`architecture`: a {config.model_type} cannot be the {part} of a {DUAL_ENCODER}, which needs one vector "
            "of an image, its `pooler_output`: take a ViT, DINOv2, Swin, ConvNeXt or EfficientNet for images, a BERT "
            "for texts."
        )
    config.hidden_size = width


def pooled_width(config: PreTrainedConfig) -> int | None:
    """D where an image model makes one vector [B, D] of an image; None where not."""
    pooled = outputs_of_a_picture(partial(AutoModel.from_config, dtype=torch.float32), config).get("pooler_output")
    return pooled.shape[1] if pooled is not None and pooled.ndim == 2 else None


def load_tower(model: PreTrainedModel, part: str, name: str) -> dict[str, Any]:
    """Give a tower the weights of a model.

    Args:
        model: with two towers.
        part: `vision_config` or `text_config`.
        name: folder or Hub id.

    Returns:
        What `from_pretrained` reports of weights that it did not find.
    """
    folder, stored = at_revision(name)
    loaded, report = AutoModel.from_pretrained(folder, output_loading_info=True, **stored)
    tower = getattr(loaded, TOWERS[part], loaded)
    getattr(model, TOWERS[part]).load_state_dict(tower.state_dict())
    return report


def has_only_towers(name: str, loader: Any, **stored: Any) -> bool:
    """Whether a model has two towers, of a kind without a class of its own for what `loader` loads, and an image tower
    of a kind that has one.

    Args:
        name: folder or Hub id of a whole model.
        loader: an Auto class.
        stored: of `from_pretrained`.
    """
    config = AutoConfig.from_pretrained(name, **stored)
    known = getattr(loader, "_model_mapping", ())
    return config.model_type == DUAL_ENCODER and type(config) not in known and type(config.vision_config) in known


def image_classifier(name: str, loader: Any, labels: Mapping[str, Any], **stored: Any) -> tuple[PreTrainedModel, dict]:
    """The image tower of a model with two, with a new head.

    Args:
        name: folder or Hub id.
        loader: the Auto class of models with such a head.
        labels: fields of the configuration that say what the head predicts.
        stored: of `from_pretrained`.

    Returns:
        The model, and what is new in it, as `from_pretrained` reports it.

    Raises:
        ValueError: the towers' weights are not there.
    """
    whole, report = AutoModel.from_pretrained(name, output_loading_info=True, **stored)
    if report["missing_keys"]:
        raise ValueError(f"it lacks weights of its towers: {sorted(report['missing_keys'])[:3]}.")
    config = whole.config.vision_config
    config.update(dict(labels))
    model = loader.from_config(config)
    backbone = backbone_of(model)
    absent = backbone.load_state_dict(whole.vision_model.state_dict(), strict=False).missing_keys
    if absent:
        raise ValueError(f"the image tower lacks weights of a {type(backbone).__name__}: {sorted(absent)[:3]}.")
    model.config._name_or_path = name
    inside = {id(parameter) for parameter in backbone.parameters()}
    new = {key for key, parameter in model.named_parameters() if id(parameter) not in inside}
    return model, {"missing_keys": new}
