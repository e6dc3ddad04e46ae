"""New heads on the backbone of a model that is there, with its weights: `backbone_config: NAME` in an architecture."""

from __future__ import annotations

from typing import Any

import torch
from transformers import AutoBackbone, AutoConfig, AutoModelForImageClassification, PreTrainedConfig, PreTrainedModel

from hf_transfer.modeling.frozen_norms import as_trained
from hf_transfer.modeling.processors import whole_pictures
from hf_transfer.models.feature_maps import FeatureMapsConfig, without_pooler
from hf_transfer.models.revisions import at_revision

BACKBONE = "backbone_config"
TAKES_ANY = ("upernet",)
"""Heads that read as many maps as there are."""
MOST_STAGES = 5
"""A backbone with more of them is a stack of layers alike, such as a ViT, with maps of one size after all of them."""


def can_be_backbone(config: PreTrainedConfig | None) -> bool:
    """Whether such a model reads pictures and gives feature maps, by a class of transformers or by ours for others."""
    config = getattr(config, "vision_config", config)
    known = (AutoBackbone._model_mapping, AutoModelForImageClassification._model_mapping)  # without public names
    return config is not None and any(type(config) in mapping for mapping in known)


def named_backbone(name: str, plain: PreTrainedConfig) -> PreTrainedConfig:
    """The configuration of the backbone: a model's own, which gives as many maps as the head reads.

    Args:
        name: folder or Hub id.
        plain: configuration of a model with such a head, as it is when nothing is given.

    Raises:
        ValueError: there is no such model, or it gives no maps or too few.
    """
    try:
        folder, stored = at_revision(name)
        config = AutoConfig.from_pretrained(folder, **stored)
        config = getattr(config, BACKBONE, None) or getattr(config, "vision_config", config)
        if type(config) not in AutoBackbone._model_mapping:
            config = FeatureMapsConfig.of(config)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"`architecture`: cannot load `{name}` as {BACKBONE}: {error}") from error
    usual = getattr(plain, BACKBONE, None)
    count = len(getattr(usual, "out_indices", None) or [0])
    stages = [stage for stage in config.stage_names if stage != "stem"]
    if plain.model_type in TAKES_ANY:
        count = min(count, len(stages))
    if len(stages) < count:
        raise ValueError(
            f"`architecture`: a {plain.model_type} reads {count} maps, and `{name}` has {len(stages)} stages."
        )
    if len(stages) <= MOST_STAGES:
        config.out_features = stages[-count:]
    else:
        config.out_features = [stages[(place + 1) * len(stages) // count - 1] for place in range(count)]
    return config


def fields_of_head(name: str, config: PreTrainedConfig, plain: PreTrainedConfig) -> dict[str, Any]:
    """Fields of a head that follow from its backbone and would not be told otherwise.

    Args:
        name: folder or Hub id of the model.
        config: of the backbone.
        plain: as `named_backbone`.
    """
    fields: dict[str, Any] = {}
    if hasattr(plain, "encoder_in_channels"):
        with torch.device("meta"):
            fields["encoder_in_channels"] = list(AutoBackbone.from_config(config).channels)
    if hasattr(plain, "use_auxiliary_head"):
        fields["use_auxiliary_head"] = False  # it is as wide as one kind of backbone
    own = getattr(config, "image_size", None)
    if isinstance(own, int):
        fields["image_size"] = own
    elif (reading := whole_pictures(name)) is not None:
        fields["image_size"] = reading.size["height"]
    return fields


def load_backbone(model: PreTrainedModel, name: str) -> dict[str, Any]:
    """Give the backbone of a model with a head the weights of another model.

    Args:
        model: with a new head.
        name: folder or Hub id.

    Returns:
        What `from_pretrained` reports of weights that it did not find.

    Raises:
        ValueError: the other model has no weights of such a backbone.
    """
    config = getattr(model.config, BACKBONE)
    backbone = next(module for module in model.modules() if type(module) is AutoBackbone._model_mapping[type(config)])
    options: dict[str, Any] = {}
    if isinstance(config, FeatureMapsConfig):
        backbone, config = backbone.base, config.base_config
        options = without_pooler(config)
    folder, stored = at_revision(name)
    kind = type(backbone)
    loaded, report = kind.from_pretrained(folder, config=config, output_loading_info=True, **stored, **options)
    weights = loaded.state_dict()
    if 2 * len(report["missing_keys"]) > len(weights):
        raise ValueError(f"`{name}` has no weights of a {kind.__name__}: {sorted(report['missing_keys'])[:3]}.")
    # batch norms at rest, as some detectors have them, count no batches
    absent = backbone.load_state_dict(weights, strict=False).missing_keys
    if absent:
        raise ValueError(f"`{name}` lacks weights of a {kind.__name__}: {sorted(absent)[:3]}.")
    as_trained(backbone, loaded)
    return report
