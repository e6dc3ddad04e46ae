"""Any image model of transformers as a backbone: feature maps of its states, for heads that read maps.

transformers has such classes of some models (ResNet, Swin, DINOv2) and of others none (ViT, EfficientNet, MobileNet).
Maps of a convolutional net are the last states of each size; those of a ViT are the tokens of its patches after every
layer, in their places. The deepest map is the last state, after whatever norm the model ends with.
"""

from __future__ import annotations

import copy
import inspect
import math
from functools import partial
from typing import Any

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import AutoConfig, AutoModel, PreTrainedConfig, PreTrainedModel
from transformers.backbone_utils import BackboneConfigMixin, BackboneMixin
from transformers.modeling_outputs import BackboneOutput

from hf_transfer.models.picture_width import outputs_of_a_picture

MOST_OTHER_TOKENS = 16
"""Beside those of patches: a class token, tokens for distillation, registers."""


@strict
class FeatureMapsConfig(BackboneConfigMixin, PreTrainedConfig):
    """Which states of a model are maps. `FeatureMapsConfig.of(config)` finds them.

    Args:
        base_config: configuration of an image model that `AutoModel` knows, or its fields with `model_type`.
        map_places: of each map among the hidden states; -1 is the last state.
        map_channels: of each map.
        num_channels: 1 for grey, 3 for colour.
        image_size: height and width in pixels that the model is made for, where it says one.
        out_features, out_indices: which maps are given, as transformers' backbones have them; "stem" is the first.
    """

    model_type = "feature-maps"
    sub_configs = {"base_config": AutoConfig}

    base_config: dict | PreTrainedConfig | None = None
    map_places: list[int] | tuple[int, ...] = (0, -1)
    map_channels: list[int] | tuple[int, ...] = (1, 1)
    num_channels: int = 3
    image_size: int | list[int] | tuple[int, ...] | None = None

    def __post_init__(self, **kwargs):
        if isinstance(self.base_config, dict):
            fields = dict(self.base_config)
            self.base_config = AutoConfig.for_model(fields.pop("model_type"), **fields)
        self.stage_names = ["stem", *(f"stage{place}" for place in range(1, len(self.map_places)))]
        self.set_output_features_output_indices(
            out_indices=kwargs.pop("out_indices", None), out_features=kwargs.pop("out_features", None)
        )
        super().__post_init__(**kwargs)

    @classmethod
    def of(cls, config: PreTrainedConfig) -> FeatureMapsConfig:
        """The maps of a model, found by a pass without weights.

        Raises:
            ValueError: it does not read pictures, or its states are no maps.
        """
        asked = copy.deepcopy(config)
        asked.output_hidden_states = True
        outputs = outputs_of_a_picture(partial(AutoModel.from_config, dtype=torch.float32), asked)
        states, last = outputs.get("hidden_states"), outputs.get("last_hidden_state")
        if not states or last is None or last.ndim not in (3, 4) or any(one.ndim != last.ndim for one in states):
            raise ValueError(f"the states of a {config.model_type} are no feature maps.")
        if last.ndim == 3:
            size = getattr(config, "image_size", None) or 224
            height, width = grid(last.shape[1], config, (size, size) if isinstance(size, int) else tuple(size))
            if not 0 <= last.shape[1] - height * width <= MOST_OTHER_TOKENS:
                raise ValueError(f"the tokens of a {config.model_type} are no patches of a picture.")
            places, widths = list(range(len(states))), [one.shape[-1] for one in states]
        else:
            last_of_size = {one.shape[-2:]: place for place, one in enumerate(states)}
            places = list(last_of_size.values())
            widths = [states[place].shape[1] for place in places]
            if len(places) == 1:
                raise ValueError(f"the states of a {config.model_type} are all of one size.")
            places, widths = [0, *places], [states[0].shape[1], *widths]
        deepest = last.shape[-1] if last.ndim == 3 else last.shape[1]
        return cls(
            base_config=config,
            map_places=[*places[:-1], -1],
            map_channels=[*widths[:-1], deepest],
            num_channels=getattr(config, "num_channels", 3),
            image_size=getattr(config, "image_size", None),
        )


class FeatureMapsBackbone(BackboneMixin, PreTrainedModel):
    """A model without its head, which gives maps of its states.

    Papers: as the model in it; reading a ViT's layers as maps is due to Ranftl et al. 2021,
    https://huggingface.co/papers/2103.13413.
    """

    config_class = FeatureMapsConfig
    base_model_prefix = "base"
    main_input_name = "pixel_values"
    supports_gradient_checkpointing = True

    def __init__(self, config: FeatureMapsConfig):
        super().__init__(config)
        self.num_features = list(config.map_channels)
        self.base = base_class(config.base_config)._from_config(
            config.base_config, **without_pooler(config.base_config)
        )
        self.post_init()

    def forward(
        self,
        pixel_values: Tensor,
        output_hidden_states: bool | None = None,
        output_attentions: bool | None = None,
        return_dict: bool | None = None,
    ) -> BackboneOutput:
        """Maps of pictures, [B, D, h, w] each.

        Args:
            pixel_values: [B, C, height, width].
            output_hidden_states: return the states as the model has them too.
            output_attentions: return its attention weights too.
            return_dict: False gives a tuple.
        """
        kwargs = {} if output_attentions is None else {"output_attentions": output_attentions}
        outputs = self.base(pixel_values, output_hidden_states=True, return_dict=True, **kwargs)
        maps = []
        for stage, place in zip(self.stage_names, self.config.map_places, strict=True):
            if stage in self.out_features:
                state = outputs.last_hidden_state if place == -1 else outputs.hidden_states[place]
                maps.append(as_map(state, self.config.base_config, pixel_values.shape[-2:]))
        made = BackboneOutput(
            feature_maps=tuple(maps),
            hidden_states=outputs.hidden_states if output_hidden_states else None,
            attentions=outputs.attentions if output_attentions else None,
        )
        return made.to_tuple() if return_dict is False else made


def base_class(config: PreTrainedConfig) -> type[PreTrainedModel]:
    """The class that `AutoModel` makes of a configuration."""
    kind = AutoModel._model_mapping[type(config)]  # it has no public name
    return kind[0] if isinstance(kind, tuple) else kind


def without_pooler(config: PreTrainedConfig) -> dict[str, Any]:
    """Keywords that leave a layer out which no map goes through, and which many checkpoints lack."""
    takes = inspect.signature(base_class(config).__init__).parameters
    return {"add_pooling_layer": False} if "add_pooling_layer" in takes else {}


def as_map(state: Tensor, config: PreTrainedConfig, size: tuple[int, int]) -> Tensor:
    """States [B, D, h, w] as they are; tokens [B, N, D] as [B, D, h, w], without those before the patches.

    Args:
        state: of a model of this configuration.
        config: of the model.
        size: height and width of the pictures.
    """
    if state.ndim == 4:
        return state
    height, width = grid(state.shape[1], config, size)
    return state[:, state.shape[1] - height * width :].transpose(1, 2).unflatten(2, (height, width))


def grid(tokens: int, config: PreTrainedConfig, size: tuple[int, int]) -> tuple[int, int]:
    """How many patches stand above and beside each other.

    Raises:
        ValueError: the configuration does not tell the size of a patch, and the pictures are no squares.
    """
    patch = getattr(config, "patch_size", None)
    if isinstance(patch, int):
        return size[0] // patch, size[1] // patch
    if patch is not None and len(patch) == 2:
        return size[0] // patch[0], size[1] // patch[1]
    if size[0] != size[1]:
        raise ValueError(f"a {config.model_type} gives maps of square pictures alone, and these have {tuple(size)}.")
    return (math.isqrt(tokens),) * 2
