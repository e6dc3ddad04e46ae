"""From the inputs of one modality to a sequence of hidden states: text, image, time series, trajectory.

Each class names its inputs in `input_names` and gives hidden states [B, L, D]; positions that belong to a sequence of
unknown start (a cache, left padding) come in as `position_ids`.
"""

import math
from itertools import pairwise

import torch
from torch import Tensor, nn

from .flow_tracing import has_values
from .positions_flowformer import grid_coordinates, sinusoidal_embedding


def look_up(table: nn.Embedding, indices: Tensor, name: str, size_name: str) -> Tensor:
    """`table(indices)`, with an error that names both sides of the mismatch."""
    if has_values(indices) and indices.device.type == "cpu" and indices.numel():
        inner = table
        # PEFT puts its own module around a table that it adapts
        while hasattr(inner, "base_layer"):
            inner = inner.base_layer
        size, (low, high) = inner.num_embeddings, indices.aminmax()
        if low < 0 or high >= size:
            raise ValueError(
                f"`{name}` should be in [0, {size - 1}] (`{size_name}={size}`), got values from {low} to {high}."
            )
    return table(indices)


def computing_dtype(module: nn.Module) -> torch.dtype:
    """That of the first parameter in floating point; quantised weights are whole numbers, bytes or no parameters."""
    dtypes = (weight.dtype for weight in module.parameters())
    # to cast inputs to 8 bits would round them away
    wide = (dtype for dtype in dtypes if dtype.is_floating_point and dtype.itemsize > 1)
    return next(wide, torch.get_default_dtype())


class FlowformerPositions(nn.Module):
    """Learned or sinusoidal positions to add; nothing for rotary, which turns queries and keys instead."""

    def __init__(self, config, num_positions: int, hidden_size: int):
        super().__init__()
        self.kind = config.position_embedding_type
        self.hidden_size = hidden_size
        self.table = nn.Embedding(num_positions, hidden_size) if self.kind == "learned" else None

    def forward(self, hidden_states: Tensor, position_ids: Tensor) -> Tensor:
        """Hidden states [B, L, D] plus the embedding of positions [B or 1, L]."""
        if self.kind == "learned":
            return hidden_states + look_up(self.table, position_ids, "position_ids", "max_position_embeddings")
        if self.kind == "sinusoidal":
            table = sinusoidal_embedding(position_ids[..., None], self.hidden_size)
            return hidden_states + table.to(hidden_states.dtype)
        return hidden_states


class FlowformerScaledWordEmbeddings(nn.Embedding):
    """Word embeddings times `embed_scale`, the name by which PEFT finds the factor."""

    def __init__(self, vocab_size: int, hidden_size: int, padding_idx: int | None, embed_scale: float):
        super().__init__(vocab_size, hidden_size, padding_idx=padding_idx)
        self.embed_scale = embed_scale

    def forward(self, input_ids: Tensor) -> Tensor:
        return super().forward(input_ids) * self.embed_scale


class FlowformerTextEmbeddings(nn.Module):
    """word(id) + position + token type (if `type_vocab_size > 0`); words times sqrt(D) with `scale_embeddings`."""

    input_names = ("input_ids", "inputs_embeds", "token_type_ids")
    main_input_name = "input_ids"
    input_layer_name = "word_embeddings"

    def __init__(self, config):
        super().__init__()
        size = config.stages[0]["hidden_size"]
        words = (config.vocab_size, size, config.pad_token_id)
        scale = config.scale_embeddings
        self.word_embeddings = FlowformerScaledWordEmbeddings(*words, size**0.5) if scale else nn.Embedding(*words)
        self.positions = FlowformerPositions(config, config.max_position_embeddings, size)
        self.token_types = nn.Embedding(config.type_vocab_size, size) if config.type_vocab_size else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def sequence_shape(self, input_ids: Tensor | None = None, inputs_embeds: Tensor | None = None, **_):
        if (input_ids is None) == (inputs_embeds is None):
            raise ValueError("You must specify exactly one of `input_ids` or `inputs_embeds`.")
        tokens = input_ids if inputs_embeds is None else inputs_embeds
        if tokens.dim() != (2 if inputs_embeds is None else 3):
            raise ValueError(f"Token ids should be [batch, length] and embeddings 3-D, got {tuple(tokens.shape)}.")
        return tokens.shape[:2], tokens.device

    def forward(
        self,
        position_ids: Tensor,
        input_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        **_,
    ) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.embed(input_ids)
        hidden_states = self.positions(inputs_embeds, position_ids)
        # Tokenizers send token types by default: a model without a table for them has nothing to add.
        if self.token_types is not None:
            types = torch.zeros_like(position_ids) if token_type_ids is None else token_type_ids
            hidden_states = hidden_states + look_up(self.token_types, types, "token_type_ids", "type_vocab_size")
        return self.dropout(hidden_states)

    def embed(self, input_ids: Tensor) -> Tensor:
        """Word embeddings [B, L, D] of ids [B, L]."""
        return look_up(self.word_embeddings, input_ids, "input_ids", "vocab_size")


class FlowformerConvStem(nn.Module):
    """3x3 convolutions of stride 2 down to the patch grid, each with a norm over the image and GELU; then a 1x1.

    Paper: Xiao et al., NeurIPS 2021, https://huggingface.co/papers/2106.14881 (which uses batch norm and ReLU)
    """

    def __init__(self, num_channels: int, hidden_size: int, patch_size: int):
        super().__init__()
        steps = int(math.log2(patch_size))
        widths = [num_channels, *(max(8, hidden_size // 2 ** (steps - 1 - step)) for step in range(steps))]
        layers = []
        for width, next_width in pairwise(widths):
            layers += [nn.Conv2d(width, next_width, 3, stride=2, padding=1, bias=False)]
            layers += [nn.GroupNorm(1, next_width), nn.GELU()]
        self.layers = nn.Sequential(*layers, nn.Conv2d(widths[-1], hidden_size, 1))

    def forward(self, pixel_values: Tensor) -> Tensor:
        return self.layers(pixel_values)


class FlowformerImageEmbeddings(nn.Module):
    """Patches, as one strided convolution or a convolutional stem, plus a position each."""

    input_names = ("pixel_values", "ids_keep", "interpolate_pos_encoding")
    main_input_name = "pixel_values"
    input_layer_name = "patches"

    def __init__(self, config):
        super().__init__()
        self.image_size, self.patch_size, self.num_channels = config.image_size, config.patch_size, config.num_channels
        self.grid_size = config.image_size // config.patch_size
        self.num_patches = self.grid_size**2
        self.size_divisor = config.patch_size * 2 ** (len(config.stages) - 1)
        size = config.stages[0]["hidden_size"]
        self.is_conv_stem = config.stem == "conv"
        if self.is_conv_stem:
            self.patches = FlowformerConvStem(config.num_channels, size, config.patch_size)
        else:
            self.patches = nn.Conv2d(config.num_channels, size, config.patch_size, stride=config.patch_size)
        self.kind = config.position_embedding_type
        learned = self.kind == "learned"
        self.position_embeddings = nn.Parameter(torch.zeros(1, self.num_patches, size)) if learned else None
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def grid_of(self, pixel_values: Tensor, interpolate_pos_encoding: bool = False) -> tuple[int, int]:
        """Rows and columns of patches.

        Raises:
            ValueError: another number of channels, or another size than the configuration's without
                `interpolate_pos_encoding=True`.
        """
        if pixel_values.dim() != 4 or pixel_values.shape[1] != self.num_channels:
            raise ValueError(
                f"`pixel_values` should be [batch, channels, height, width] (`num_channels={self.num_channels}`), got "
                f"{tuple(pixel_values.shape)}."
            )
        height, width = pixel_values.shape[2:]
        if not interpolate_pos_encoding and (height, width) != (self.image_size, self.image_size):
            raise ValueError(
                f"Input image size ({height}*{width}) doesn't match model ({self.image_size}*{self.image_size}): "
                "resize the images, or pass `interpolate_pos_encoding=True`."
            )
        if height % self.size_divisor or width % self.size_divisor or not pixel_values.numel():
            raise ValueError(
                f"Height and width should be multiples of {self.size_divisor} (`patch_size`, doubled by each further "
                f"stage) in at least one image, got {tuple(pixel_values.shape)}."
            )
        return height // self.patch_size, width // self.patch_size

    def forward(
        self,
        pixel_values: Tensor,  # [B, C, height, width]
        ids_keep: Tensor | None = None,  # [B, N'] the patches to see, the others are dropped
        interpolate_pos_encoding: bool = False,
        **_,
    ) -> Tensor:
        grid = self.grid_of(pixel_values, interpolate_pos_encoding)
        pixel_values = pixel_values.to(computing_dtype(self.patches))
        if ids_keep is not None and self.is_conv_stem:
            # neighbouring patches overlap in a stem of 3x3 convolutions: hidden pixels must not leak into visible ones
            pixel_values = pixel_values * self._visible_pixels(ids_keep, grid).to(pixel_values.dtype)
        hidden_states = self.patches(pixel_values).flatten(2).transpose(1, 2)
        hidden_states = hidden_states + self._positions(grid, hidden_states)
        if ids_keep is not None:
            hidden_states = hidden_states.gather(1, ids_keep[..., None].expand(-1, -1, hidden_states.shape[-1]))
        return self.dropout(hidden_states)

    def _visible_pixels(self, ids_keep: Tensor, grid: tuple[int, int]) -> Tensor:
        visible = torch.zeros(ids_keep.shape[0], grid[0] * grid[1], device=ids_keep.device)
        visible = visible.scatter(1, ids_keep, 1.0).view(-1, 1, *grid)
        return visible.repeat_interleave(self.patch_size, 2).repeat_interleave(self.patch_size, 3)

    def _positions(self, grid: tuple[int, int], hidden_states: Tensor) -> Tensor:
        if self.kind == "sinusoidal":
            coordinates = grid_coordinates(*grid, device=hidden_states.device)
            return sinusoidal_embedding(coordinates, hidden_states.shape[-1]).to(hidden_states.dtype)
        if self.kind != "learned":
            return hidden_states.new_zeros(())
        if grid == (self.grid_size, self.grid_size):
            return self.position_embeddings
        table = self.position_embeddings.transpose(1, 2).unflatten(2, (self.grid_size, self.grid_size))
        table = nn.functional.interpolate(table, size=grid, mode="bicubic", align_corners=False)
        return table.flatten(2).transpose(1, 2)


class FlowformerTimeSeriesEmbeddings(nn.Module):
    """A linear map of the channels of each time step, plus a position; `past_values` [B, T, C]."""

    input_names = ("past_values", "inputs_embeds")
    main_input_name = "past_values"
    input_layer_name = "projection"

    def __init__(self, config):
        super().__init__()
        size = config.stages[0]["hidden_size"]
        self.num_input_channels = config.num_input_channels
        self.scale = size**0.5 if config.scale_embeddings else 1.0
        self.projection = nn.Linear(config.num_input_channels, size)
        self.positions = FlowformerPositions(config, config.max_position_embeddings, size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def sequence_shape(self, past_values: Tensor | None = None, inputs_embeds: Tensor | None = None, **_):
        if inputs_embeds is not None:
            return inputs_embeds.shape[:2], inputs_embeds.device
        if past_values is None or past_values.dim() != 3 or past_values.shape[-1] != self.num_input_channels:
            got = None if past_values is None else tuple(past_values.shape)
            raise ValueError(
                f"`past_values` should be [batch, time, {self.num_input_channels}] "
                f"(`num_input_channels={self.num_input_channels}`), got {got}."
            )
        return past_values.shape[:2], past_values.device

    def forward(
        self,
        position_ids: Tensor,
        past_values: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        padding_mask: Tensor | None = None,
        **_,
    ) -> Tensor:
        if inputs_embeds is None:
            inputs_embeds = self.project(past_values, padding_mask)
        return self.dropout(self.positions(inputs_embeds, position_ids))

    def project(self, past_values: Tensor, padding_mask: Tensor | None) -> Tensor:
        """[B, T, C] -> [B, T, D]; steps the mask hides may hold anything.

        Raises:
            ValueError: NaN or infinity in a real step.
        """
        values = past_values.to(computing_dtype(self.projection))
        if padding_mask is not None:
            values = values.masked_fill(~padding_mask[..., None], 0)
        if has_values(values) and not torch.isfinite(values).all():
            raise ValueError(
                "`past_values` holds NaN or infinite values: impute them, or mark those steps 0 in `attention_mask`."
            )
        return self.projection(values) * self.scale


class FlowformerTrajectoryEmbeddings(nn.Module):
    """Three tokens a time step - return-to-go, state, action - each with the embedding of the step's number.

    Paper: Chen et al., NeurIPS 2021, https://huggingface.co/papers/2106.01345
    """

    input_names = ("states", "actions", "returns_to_go", "timesteps")
    main_input_name = "states"
    input_layer_name = "embed_state"
    tokens_per_step = 3

    def __init__(self, config):
        super().__init__()
        size = config.stages[0]["hidden_size"]
        self.state_dim, self.act_dim = config.state_dim, config.act_dim
        self.embed_return = nn.Linear(1, size)
        self.embed_state = nn.Linear(config.state_dim, size)
        self.embed_action = nn.Linear(config.act_dim, size)
        self.embed_timestep = nn.Embedding(config.max_episode_length, size)
        self.norm = nn.LayerNorm(size, eps=config.layer_norm_eps)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)

    def sequence_shape(
        self,
        states: Tensor | None = None,
        actions: Tensor | None = None,
        returns_to_go: Tensor | None = None,
        timesteps: Tensor | None = None,
        **_,
    ):
        inputs = {"states": states, "actions": actions, "returns_to_go": returns_to_go, "timesteps": timesteps}
        missing = [name for name, tensor in inputs.items() if tensor is None]
        if missing:
            raise ValueError(f"A trajectory needs states, actions, returns_to_go and timesteps; missing: {missing}.")
        if timesteps.dim() != 2:
            raise ValueError(f"`timesteps` should be [batch, time], got {tuple(timesteps.shape)}.")
        shape = tuple(timesteps.shape)
        expected = {
            "states": (*shape, self.state_dim),
            "actions": (*shape, self.act_dim),
            "returns_to_go": (*shape, 1),
        }
        for name, shape in expected.items():
            if tuple(inputs[name].shape) != shape:
                raise ValueError(f"`{name}` should be of shape {shape}, got {tuple(inputs[name].shape)}.")
        return timesteps.shape, timesteps.device

    def forward(
        self,
        position_ids: Tensor,
        states: Tensor | None = None,
        actions: Tensor | None = None,
        returns_to_go: Tensor | None = None,
        timesteps: Tensor | None = None,
        **_,
    ) -> Tensor:
        dtype = computing_dtype(self.embed_state)
        time = look_up(self.embed_timestep, timesteps, "timesteps", "max_episode_length")
        tokens = (
            self.embed_return(returns_to_go.to(dtype)),
            self.embed_state(states.to(dtype)),
            self.embed_action(actions.to(dtype)),
        )
        hidden_states = torch.stack([token + time for token in tokens], dim=2).flatten(1, 2)  # [B, 3 T, D]
        return self.dropout(self.norm(hidden_states))


EMBEDDINGS = {
    "text": FlowformerTextEmbeddings,
    "image": FlowformerImageEmbeddings,
    "time_series": FlowformerTimeSeriesEmbeddings,
    "trajectory": FlowformerTrajectoryEmbeddings,
}
