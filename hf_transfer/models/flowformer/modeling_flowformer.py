"""Flowformer: one transformer for text, images, time series and trajectories, with attention in linear time.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

import copy

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.cache_utils import Cache, DynamicCache
from transformers.masking_utils import (
    create_causal_mask,
    create_sliding_window_causal_mask,
    packed_sequence_mask_function,
)
from transformers.modeling_outputs import BaseModelOutputWithPast
from transformers.modeling_utils import PreTrainedModel
from transformers.utils import logging
from transformers.utils.generic import merge_with_config_defaults
from transformers.utils.output_capturing import capture_outputs

from .attention_flowformer import FlowformerAttention
from .cache_flowformer import cached_rows, check_lengths, is_flow
from .configuration_flowformer import FlowformerConfig
from .embeddings_flowformer import EMBEDDINGS, FlowformerImageEmbeddings
from .flow_compatibility import tell_of_no_weights
from .flow_packing import Packing
from .flow_tracing import has_values, is_traced
from .layers_flowformer import FlowformerDownsample, FlowformerLayer, FlowformerLayerScale, make_norm, normalize
from .packing_flowformer import find_documents, positions_in_documents
from .positions_flowformer import FlowformerRotaryEmbedding, grid_coordinates

logger = logging.get_logger(__name__)

SOFTMAX_MASKS = {"full_attention": create_causal_mask, "sliding_attention": create_sliding_window_causal_mask}


def kind(attention: str) -> str:
    """ "flow", or "sdpa" for every implementation of softmax attention: they are one function."""
    return "flow" if attention == "flow" else "sdpa"


def layer_masks(config, hidden_states, attention_mask, padding_mask, past_key_values, documents=None) -> dict:
    """The mask of each type of layer: which tokens are real for flow attention, one per pair for softmax."""
    apart = None if documents is None else packed_sequence_mask_function(documents)
    types, masks = config.layer_types, {"flow_attention": padding_mask}
    for name, make in SOFTMAX_MASKS.items():
        if name in types:
            # sizes and past of a layer of this type
            options = {"and_mask_function": apart, "layer_idx": types.index(name)}
            masks[name] = make(config, hidden_states, attention_mask, past_key_values, **options)
    return masks


class FlowformerPreTrainedModel(PreTrainedModel):
    """What all Flowformer models share: the default attention, initial weights and what may be recorded or split."""

    config: FlowformerConfig
    config_class = FlowformerConfig
    base_model_prefix = "flowformer"
    main_input_name = "input_ids"
    supports_gradient_checkpointing = True
    _no_split_modules = ["FlowformerLayer"]
    _skip_keys_device_placement = ["past_key_values"]
    _supports_sdpa = True
    _supports_flash_attn = True
    _supports_attention_backend = True
    _can_compile_fullgraph = True
    _can_record_outputs = {"hidden_states": FlowformerLayer, "attentions": FlowformerAttention}

    required_modality: str | tuple[str, ...] | None = None
    always_causal = False

    def __init__(self, config: FlowformerConfig, *inputs, **kwargs):
        needed = (self.required_modality,) if isinstance(self.required_modality, str) else self.required_modality
        if needed is not None and config.modality not in needed:
            raise ValueError(
                f"`{type(self).__name__}` needs a configuration with `modality={' or '.join(map(repr, needed))}`, got "
                f"{config.modality!r}."
            )
        if self.always_causal and not config.is_causal:
            config = copy.deepcopy(config)
            config.is_causal = True
        super().__init__(config, *inputs, **kwargs)

    def get_correct_attn_implementation(self, requested_attention: str | None, is_init_check: bool = False) -> str:
        """What is asked for, or else what the saved weights were trained with, or else flow attention.

        Where `layer_types` says what each layer computes, it is the implementation of the softmax layers.
        """
        if self.config.mixes_layers:
            return super().get_correct_attn_implementation(self._softmax_of(requested_attention), is_init_check)
        trained = self.config.trained_attention
        if trained is not None and requested_attention is not None and kind(trained) != kind(requested_attention):
            logger.warning(
                f"These weights were trained with {kind(trained)} attention and give other outputs under "
                f"`attn_implementation={requested_attention!r}`: leave it out to have what they were trained with."
            )
        return super().get_correct_attn_implementation(requested_attention or trained or "flow", is_init_check)

    @property
    def _is_stateful(self) -> bool:
        """Past tokens cannot be taken out of a flow state, so assisted decoding refuses a model that has one."""
        return "flow_attention" in self.config.layer_types

    def _softmax_of(self, requested_attention: str | None) -> str:
        """How the softmax layers of a mixed model compute; "flow" where it has none."""
        if set(self.config.layer_types) != {"flow_attention"}:
            return "sdpa" if requested_attention in (None, "flow") else requested_attention
        if requested_attention not in (None, "flow"):
            raise ValueError(
                f"All `layer_types` are 'flow_attention', got `attn_implementation={requested_attention!r}`: leave "
                "one of them out."
            )
        return "flow"

    def save_pretrained(self, *args, **kwargs):
        """As in transformers; the configuration then says which attention the weights belong to."""
        mixed = self.config.mixes_layers
        self.config.trained_attention = None if mixed else kind(self.config._attn_implementation)
        return super().save_pretrained(*args, **kwargs)

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if isinstance(module, nn.Linear):
            xavier = (2 / (module.in_features + module.out_features)) ** 0.5
            init.normal_(module.weight, std=self.config.linear_initializer_range or xavier)
        elif isinstance(module, nn.Conv2d):
            fan_in = module.weight.shape[1] * module.weight.shape[2] * module.weight.shape[3]
            init.normal_(module.weight, std=fan_in**-0.5)
        elif isinstance(module, FlowformerLayerScale):
            init.constant_(module.scale, module.init_value)
        elif isinstance(module, FlowformerImageEmbeddings) and module.position_embeddings is not None:
            init.normal_(module.position_embeddings, std=self.config.initializer_range)


class FlowformerModel(FlowformerPreTrainedModel):
    """The bare model: embeddings of `config.modality`, the layers (in stages for a pyramid) and the final norm.

    Inputs by modality: text `input_ids` [B, L] or `inputs_embeds`; image `pixel_values` [B, C, height, width]; time
    series `past_values` [B, T, C]; trajectory `states`, `actions`, `returns_to_go`, `timesteps` [B, T, ...], which
    become three tokens a step. `attention_mask` is [B, L or T], 1 = real token; with a cache it covers the past too.

    A row may hold several documents, packed without padding: `position_ids` that restart, `seq_idx` or
    `cu_seq_lens_q`, as transformers' DataCollatorWithFlattening gives them. None of them sees another, under flow
    attention and under softmax.
    """

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.embeddings = EMBEDDINGS[config.modality](config)
        self.main_input_name = self.embeddings.main_input_name
        rotates = config.position_embedding_type == "rotary"
        self.rotary_emb = FlowformerRotaryEmbedding(config) if rotates else None
        last = max(config.num_hidden_layers - 1, 1)
        rates = [config.drop_path_rate * index / last for index in range(config.num_hidden_layers)]
        layers, downsamples, self.stage_starts = [], [], []
        for stage, previous in zip(config.stages, [None, *config.stages]):
            if previous is not None:
                self.stage_starts.append(len(layers))
                downsamples.append(FlowformerDownsample(config, previous["hidden_size"], stage["hidden_size"]))
            sizes = [stage[name] for name in ("hidden_size", "num_heads", "intermediate_size")]
            for layer_idx in range(len(layers), len(layers) + stage["depth"]):
                layer_type = config.layer_types[layer_idx] if config.mixes_layers else None
                layers.append(
                    FlowformerLayer(
                        config, layer_idx, *sizes, rates[layer_idx], layer_type, config.num_key_value_heads
                    )
                )
        self.layers = nn.ModuleList(layers)
        self.downsamples = nn.ModuleList(downsamples)
        self.norm = make_norm(config, config.hidden_size) if config.has_final_norm else None
        self.gradient_checkpointing = False
        self.post_init()

    def get_input_embeddings(self) -> nn.Module:
        return getattr(self.embeddings, self.embeddings.input_layer_name)

    def set_input_embeddings(self, value: nn.Module):
        if self.config.modality != "text":
            raise NotImplementedError(
                f"Only text models have word embeddings, this one is for {self.config.modality}."
            )
        self.embeddings.word_embeddings = value

    @merge_with_config_defaults
    @capture_outputs
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        pixel_values: Tensor | None = None,
        ids_keep: Tensor | None = None,
        interpolate_pos_encoding: bool | None = None,
        past_values: Tensor | None = None,
        states: Tensor | None = None,
        actions: Tensor | None = None,
        returns_to_go: Tensor | None = None,
        timesteps: Tensor | None = None,
        use_cache: bool | None = None,
        **kwargs,
    ) -> BaseModelOutputWithPast:
        inputs = {
            "input_ids": input_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
            "pixel_values": pixel_values,
            "ids_keep": ids_keep,
            "interpolate_pos_encoding": interpolate_pos_encoding or None,
            "past_values": past_values,
            "states": states,
            "actions": actions,
            "returns_to_go": returns_to_go,
            "timesteps": timesteps,
        }
        inputs = {name: value for name, value in inputs.items() if value is not None}
        bounds = {name: kwargs.pop(name, None) for name in ("seq_idx", "cu_seq_lens_q", "cu_seq_lens_k")}
        one_document_a_row = kwargs.pop("one_document_a_row", False)
        # generate() with a static cache makes the masks itself, one a type of layer
        made = attention_mask if isinstance(attention_mask, dict) else None
        attention_mask = None if made is not None else attention_mask
        self._check_inputs(inputs, attention_mask, {"position_ids": position_ids, **bounds})
        if "flow_attention" in self.config.layer_types and kwargs.get("output_attentions"):
            tell_of_no_weights(type(self).__name__)
        if self.config.modality == "image":
            self._cache_to_use(past_key_values, use_cache, kwargs.get("is_causal"))
            return self._forward_image(inputs, **kwargs)
        (batch_size, length), device = self.embeddings.sequence_shape(**inputs)
        if length == 0 or batch_size == 0:
            raise ValueError(f"The sequence is empty: got {length} tokens in a batch of {batch_size}.")
        self._check_positions(position_ids, batch_size, length)
        padding_mask = self._padding_mask(attention_mask, past_key_values, batch_size, length, device)
        padding_mask = padding_mask if made is None else made.get("flow_attention")
        documents = None
        # a mask per pair of tokens says by itself what is apart
        if made is None and (attention_mask is None or attention_mask.dim() != 4):
            documents = find_documents((batch_size, length), position_ids, padding_mask=padding_mask, **bounds)
        if documents is not None:
            self._check_packed(past_key_values, one_document_a_row)
            use_cache = False
        past_key_values = self._cache_to_use(past_key_values, use_cache, kwargs.get("is_causal"), batch_size)
        masks = {"attention_mask": attention_mask, "padding_mask": padding_mask, "documents": documents, "made": made}
        return self._forward_sequence(inputs, position_ids, past_key_values, **masks, **kwargs)

    def _forward_image(self, inputs: dict, **kwargs) -> BaseModelOutputWithPast:
        if "pixel_values" not in inputs:
            raise ValueError("An image model needs `pixel_values`.")
        ids_keep = inputs.get("ids_keep")
        if ids_keep is not None and self.config.is_pyramid:
            raise ValueError("A pyramid merges neighbouring patches and cannot drop some: use `hidden_sizes=None`.")
        interpolate = inputs.get("interpolate_pos_encoding", False)
        grid = self.embeddings.grid_of(inputs["pixel_values"], interpolate)
        hidden_states = self.embeddings(**inputs)
        rotary = None
        if self.rotary_emb is not None:
            coordinates = grid_coordinates(*grid, device=hidden_states.device)
            coordinates = coordinates if ids_keep is None else coordinates[0][ids_keep]
            rotary = self.rotary_emb(coordinates)
        return self._run_layers(hidden_states, {}, None, rotary, None, grid=grid, **kwargs)

    def _forward_sequence(
        self, inputs: dict, position_ids, past_key_values, attention_mask, padding_mask, documents, made, **kwargs
    ) -> BaseModelOutputWithPast:
        (_, length), device = self.embeddings.sequence_shape(**inputs)
        if position_ids is None and documents is not None:
            position_ids = positions_in_documents(documents, padding_mask)
        elif position_ids is None:
            position_ids = self._position_ids(padding_mask, attention_mask, past_key_values, length, device)
        hidden_states = self.embeddings(position_ids, padding_mask=padding_mask, **inputs)
        tokens_per_step = getattr(self.embeddings, "tokens_per_step", 1)
        if tokens_per_step > 1:
            steps = torch.arange(tokens_per_step, device=device)
            position_ids = (position_ids[..., None] * tokens_per_step + steps).flatten(1)
            padding_mask, attention_mask, documents = (
                None if tensor is None else tensor.repeat_interleave(tokens_per_step, dim=1)
                for tensor in (padding_mask, attention_mask, documents)
            )
        if documents is not None and "flow_attention" in self.config.layer_types:
            kwargs["packing"] = Packing.of(documents, padding_mask)
        masks = made
        if masks is None:
            masks = layer_masks(self.config, hidden_states, attention_mask, padding_mask, past_key_values, documents)
        rotary = None if self.rotary_emb is None else self.rotary_emb(position_ids[..., None])
        return self._run_layers(hidden_states, masks, padding_mask, rotary, past_key_values, **kwargs)

    def _run_layers(
        self, hidden_states, masks: dict, padding_mask, rotary, past_key_values, grid=None, **kwargs
    ) -> BaseModelOutputWithPast:
        for index, (layer, layer_type) in enumerate(zip(self.layers, self.config.layer_types)):
            if index in self.stage_starts:
                hidden_states = self.downsamples[self.stage_starts.index(index)](hidden_states, grid)
                grid = (grid[0] // 2, grid[1] // 2)
            hidden_states = layer(
                hidden_states,
                masks.get(layer_type),
                padding_mask,
                position_embeddings=rotary,
                past_key_values=past_key_values,
                **kwargs,
            )
        if self.norm is not None:
            hidden_states = normalize(self.norm, hidden_states, padding_mask)
        return BaseModelOutputWithPast(last_hidden_state=hidden_states, past_key_values=past_key_values)

    def _check_inputs(self, inputs: dict, attention_mask: Tensor | None, bounds: dict) -> None:
        accepted = self.embeddings.input_names
        foreign = [name for name in inputs if name not in accepted]
        if foreign:
            raise ValueError(f"A Flowformer for {self.config.modality} takes {list(accepted)}, got {foreign}.")
        if self.config.modality != "image":
            return
        if attention_mask is not None:
            raise ValueError("An image has no padding: `attention_mask` has no meaning with `pixel_values`.")
        given = [name for name, value in bounds.items() if value is not None]
        if given:
            raise ValueError(f"An image is one sequence of patches: {given} have no meaning with `pixel_values`.")

    @staticmethod
    def _check_positions(position_ids: Tensor | None, batch_size: int, length: int) -> None:
        """A row of positions for all rows of tokens is as good as one for each."""
        shape = None if position_ids is None else tuple(position_ids.shape)
        if shape not in (None, (batch_size, length), (1, length), (length,)):
            raise ValueError(
                f"`position_ids` should be of shape {(batch_size, length)}, one for each token given and none for "
                f"those in a cache, got {shape}."
            )

    def _check_packed(self, past_key_values: Cache | None, one_document_a_row: bool) -> None:
        if one_document_a_row:
            raise ValueError(
                "This head reads a row as one document, got several packed in a row (`position_ids` that restart, "
                "`seq_idx` or `cu_seq_lens_q`): pad them to rows of their own (DataCollatorWithPadding)."
            )
        if past_key_values is not None:
            raise ValueError("Packed documents have no common past: leave `past_key_values` out.")
        if "flash" in self.config._attn_implementation:
            raise ValueError("Packed documents need `attn_implementation` 'flow', 'sdpa' or 'eager'.")

    def _cache_to_use(self, past_key_values, use_cache, is_causal, batch_size: int | None = None) -> Cache | None:
        is_causal = self.config.is_causal if is_causal is None else is_causal
        if not is_causal or self.config.modality != "text":
            if past_key_values is not None:
                raise ValueError(
                    "A cache needs a causal text model: set `is_causal=True` in the configuration. Prefix tuning "
                    "makes one of keys and values, which flow attention has not: use prompt tuning "
                    "(PromptTuningConfig) or P-tuning (PromptEncoderConfig)."
                )
            return None
        if past_key_values is None and use_cache:
            return DynamicCache(config=self.config)
        rows = cached_rows(past_key_values)
        if rows not in (None, batch_size):
            raise ValueError(
                f"`past_key_values` holds {rows} rows and the input {batch_size}: they should be the same rows. "
                "`past_key_values.batch_repeat_interleave` and `batch_select_indices` change those of a cache."
            )
        if past_key_values is not None and not is_traced():
            check_lengths(past_key_values)
        return past_key_values

    def _padding_mask(self, attention_mask, past_key_values, batch_size, length, device) -> Tensor | None:
        """[B, L] boolean mask of the current tokens, or None when all are real.

        Raises:
            ValueError: a mask that does not cover past and present tokens.
        """
        if attention_mask is None:
            return None
        if attention_mask.dim() == 4 and "flow_attention" not in self.config.layer_types:
            if attention_mask.dtype != torch.bool and not attention_mask.is_floating_point():
                raise ValueError(
                    "A mask per pair of tokens should be boolean (True = keep) or in floating point (added to the "
                    f"products), got {attention_mask.dtype}."
                )
            return None
        if not is_traced():
            past_length = 0 if past_key_values is None else int(past_key_values.get_seq_length())
            expected = (batch_size, past_length + length)
            if tuple(attention_mask.shape) != expected:
                raise ValueError(f"`attention_mask` should be of shape {expected}, got {tuple(attention_mask.shape)}.")
        mask = attention_mask[:, -length:].to(device).bool()
        return None if has_values(mask) and mask.all() else mask

    @staticmethod
    def _position_ids(padding_mask, attention_mask, past_key_values, length: int, device) -> Tensor:
        """Positions [B or 1, L] that count real tokens, so that left padding changes nothing."""
        past: int | Tensor = 0
        layers = [] if past_key_values is None else past_key_values.layers
        states = [layer.state for layer in layers if is_flow(layer) and layer.state is not None]
        if states:
            past = states[0].num_tokens[:, None].to(device)
        elif past_key_values is not None and attention_mask is not None and attention_mask.dim() == 2:
            past = attention_mask[:, :-length].long().sum(1, keepdim=True).to(device)
        elif past_key_values is not None:
            past = past_key_values.get_seq_length()
        if padding_mask is None:
            return torch.arange(length, device=device)[None] + past
        return ((padding_mask.long().cumsum(1) - 1) + past).clamp(min=0)


__all__ = ["FlowformerModel", "FlowformerPreTrainedModel"]
