"""Flowformer as a backbone: maps of chosen stages, [B, D_s, height_s, width_s] of images or [B, D, T] of series.

The stages of a pyramid end before the convolution that leads to the next; those of a plain model are its layers. The
map of the last stage went through the model's final norm, each other one has a norm of its own, as Swin's have.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258; Liu et al., ICCV 2021,
https://huggingface.co/papers/2103.14030 for the norms.
"""

from torch import Tensor, nn
from transformers.backbone_utils import BackboneMixin, filter_output_hidden_states
from transformers.modeling_outputs import BackboneOutput
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import MAPPED_MODALITIES, FlowformerConfig
from .layers_flowformer import make_norm, normalize
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel


class FlowformerBackbone(BackboneMixin, FlowformerPreTrainedModel):
    """What `AutoBackbone` builds: heads such as UperNet, DETR or SegFormer's read its `feature_maps` and `channels`.

    Images may have another size than the configuration's, in multiples of the patch size, doubled by each further
    stage of a pyramid: learned positions are interpolated. The maps of series are 0 where `attention_mask` is.
    """

    required_modality = MAPPED_MODALITIES
    main_input_name = "pixel_values"

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(config)
        self.main_input_name = self.flowformer.main_input_name
        widths = [stage["hidden_size"] for stage in config.stages]
        depths = [stage["depth"] for stage in config.stages]
        if not config.is_pyramid:
            widths, depths = widths * config.num_hidden_layers, [1] * config.num_hidden_layers
        self.num_features = [widths[0], *widths]
        # how many layers lie before the end of the stem and of each stage
        self.stage_ends = [sum(depths[:stage]) for stage in range(len(depths) + 1)]
        channels = zip(self.out_features, self.channels)
        self.norms = nn.ModuleDict({name: make_norm(config, size) for name, size in channels if name != self.last})
        self.post_init()

    @property
    def last(self) -> str:
        """The name of the last stage."""
        return self.stage_names[-1]

    @can_return_tuple
    @filter_output_hidden_states
    def forward(
        self,
        pixel_values: Tensor | None = None,  # [B, C, height, width]
        past_values: Tensor | None = None,  # [B, T, C]
        attention_mask: Tensor | None = None,  # [B, T], 1 = real step
        **kwargs,
    ) -> BackboneOutput:
        if self.config.modality == "image":
            kwargs["interpolate_pos_encoding"] = True
        inputs = {"pixel_values": pixel_values, "past_values": past_values, "attention_mask": attention_mask}
        outputs = self.flowformer(**inputs, **kwargs)
        mask = None if attention_mask is None else attention_mask.to(outputs.last_hidden_state.device).bool()
        maps = []
        for index, (name, end) in enumerate(zip(self.stage_names, self.stage_ends)):
            if name not in self.out_features:
                continue
            states = outputs.last_hidden_state if name == self.last else outputs.hidden_states[end]
            states = states if name == self.last else normalize(self.norms[name], states, mask)
            maps.append(self._on_grid(states, index, pixel_values, mask))
        return BackboneOutput(
            feature_maps=tuple(maps), hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _on_grid(self, states: Tensor, index: int, pixel_values: Tensor | None, mask: Tensor | None) -> Tensor:
        """Hidden states [B, L, D] of the stage `index` as [B, D, height, width] or, of series, [B, D, T]."""
        if self.config.modality != "image":
            return (states if mask is None else states.masked_fill(~mask[..., None], 0)).mT
        height, width = self.flowformer.embeddings.grid_of(pixel_values, interpolate_pos_encoding=True)
        shrink = 2 ** max(index - 1, 0) if self.config.is_pyramid else 1
        return states.mT.unflatten(2, (height // shrink, width // shrink))


__all__ = ["FlowformerBackbone"]
