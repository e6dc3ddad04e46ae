"""The block of Flowformer: attention and MLP branches with their norms, scales and stochastic depth."""

import torch
from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.modeling_layers import GradientCheckpointingLayer

from .attention_flowformer import FlowformerAttention


class FlowformerBatchNorm(nn.BatchNorm1d):
    """Batch normalisation of [B, L, D] over real tokens only: padding changes neither them nor the statistics."""

    def forward(self, hidden_states: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        if padding_mask is None or not self.training:
            return super().forward(hidden_states.flatten(0, 1)).view_as(hidden_states)
        # masked sums and not a selection of tokens: no shape depends on the data, so the model stays one graph
        padding, count = ~padding_mask[..., None], padding_mask.sum().clamp(min=1)
        states = hidden_states.to(self.running_mean.dtype).masked_fill(padding, 0)
        mean = states.sum((0, 1)) / count
        centred = (states - mean).masked_fill(padding, 0)
        variance = centred.square().sum((0, 1)) / count
        with torch.no_grad():
            self.num_batches_tracked.add_(1)
            self.running_mean.lerp_(mean, self.momentum)
            self.running_var.lerp_(variance * count / (count - 1).clamp(min=1), self.momentum)
        output = centred * (variance + self.eps).rsqrt() * self.weight + self.bias
        return output.masked_fill(padding, 0).to(hidden_states.dtype)


class FlowformerLayerNorm(nn.LayerNorm):
    """Layer normalisation that takes, and has no use for, the padding mask."""

    def forward(self, hidden_states: Tensor, padding_mask: Tensor | None = None) -> Tensor:
        return super().forward(hidden_states)


def make_norm(config, hidden_size: int) -> nn.Module:
    """The norm `config.norm_type` names, called as `norm(hidden_states, padding_mask)`."""
    norm_class = FlowformerBatchNorm if config.norm_type == "batch_norm" else FlowformerLayerNorm
    return norm_class(hidden_size, eps=config.layer_norm_eps)


def normalize(norm: nn.Module, hidden_states: Tensor, padding_mask: Tensor | None = None) -> Tensor:
    """`norm` over real tokens; what `SyncBatchNorm.convert_sync_batchnorm` left in its place knows no mask."""
    if not isinstance(norm, nn.SyncBatchNorm):
        return norm(hidden_states, padding_mask)
    real = hidden_states.new_ones(hidden_states.shape[:2]).bool() if padding_mask is None else padding_mask
    output = torch.zeros_like(hidden_states)
    output[real] = norm(hidden_states[real]).to(output.dtype)
    return output


class FlowformerLayerScale(nn.Module):
    """A learned factor per feature, initialised at `config.layer_scale_init_value`.

    Paper: Touvron et al., ICCV 2021, https://huggingface.co/papers/2103.17239
    """

    def __init__(self, hidden_size: int, init_value: float):
        super().__init__()
        self.init_value = init_value
        self.scale = nn.Parameter(torch.full((hidden_size,), init_value))

    def forward(self, hidden_states: Tensor) -> Tensor:
        return hidden_states * self.scale


class FlowformerDropPath(nn.Module):
    """Drops a residual branch for whole rows of the batch with probability `rate`, and rescales the others.

    Paper: Huang et al., ECCV 2016, https://huggingface.co/papers/1603.09382
    """

    def __init__(self, rate: float):
        super().__init__()
        self.rate = rate

    def forward(self, branch: Tensor) -> Tensor:
        if not self.training or self.rate == 0:
            return branch
        keep = torch.rand(branch.shape[0], *[1] * (branch.dim() - 1), device=branch.device) >= self.rate
        return branch * keep / (1 - self.rate)


class FlowformerMLP(nn.Module):
    def __init__(self, config, hidden_size: int, intermediate_size: int):
        super().__init__()
        self.fc1 = nn.Linear(hidden_size, intermediate_size)
        self.activation = ACT2FN[config.hidden_act]
        self.fc2 = nn.Linear(intermediate_size, hidden_size)

    def forward(self, hidden_states: Tensor) -> Tensor:
        return self.fc2(self.activation(self.fc1(hidden_states)))


class FlowformerLayer(GradientCheckpointingLayer):
    """pre-norm: x + f(norm(x)) for f = attention, then f = MLP; post-norm: norm(x + f(x))."""

    def __init__(
        self,
        config,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        intermediate_size: int,
        drop_path: float = 0.0,
        layer_type: str | None = None,
        key_value_heads: int | None = None,
    ):
        super().__init__()
        self.pre_norm = config.norm_position == "pre"
        self.attention = FlowformerAttention(config, layer_idx, hidden_size, num_heads, layer_type, key_value_heads)
        self.attention_norm = make_norm(config, hidden_size)
        self.mlp = FlowformerMLP(config, hidden_size, intermediate_size)
        self.mlp_norm = make_norm(config, hidden_size)
        self.dropout = nn.Dropout(config.hidden_dropout_prob)
        self.drop_path = FlowformerDropPath(drop_path)
        init_value = config.layer_scale_init_value
        scaled = init_value is not None
        self.attention_scale = (
            FlowformerLayerScale(hidden_size, init_value)
            if scaled and config.scale_attention_branch
            else nn.Identity()
        )
        self.mlp_scale = FlowformerLayerScale(hidden_size, init_value) if scaled else nn.Identity()

    def forward(
        self,
        hidden_states: Tensor,  # [B, L, D]
        attention_mask: Tensor | None = None,
        padding_mask: Tensor | None = None,  # [B, L] boolean, True = real
        **kwargs,
    ) -> Tensor:
        normed = normalize(self.attention_norm, hidden_states, padding_mask) if self.pre_norm else hidden_states
        branch, _ = self.attention(normed, attention_mask, **kwargs)
        hidden_states = hidden_states + self.drop_path(self.attention_scale(self.dropout(branch)))
        if not self.pre_norm:
            hidden_states = normalize(self.attention_norm, hidden_states, padding_mask)
        normed = normalize(self.mlp_norm, hidden_states, padding_mask) if self.pre_norm else hidden_states
        branch = self.mlp(normed)
        hidden_states = hidden_states + self.drop_path(self.mlp_scale(self.dropout(branch)))
        if not self.pre_norm:
            hidden_states = normalize(self.mlp_norm, hidden_states, padding_mask)
        return hidden_states


class FlowformerDownsample(nn.Module):
    """Between two stages of a pyramid: norm (if asked), then a 2 x 2 convolution of stride 2 on the patch grid."""

    def __init__(self, config, hidden_size: int, next_hidden_size: int):
        super().__init__()
        self.norm = make_norm(config, hidden_size) if config.downsample_norm else None
        self.reduction = nn.Conv2d(hidden_size, next_hidden_size, kernel_size=2, stride=2)

    def forward(self, hidden_states: Tensor, grid: tuple[int, int]) -> Tensor:
        """[B, h w, D] -> [B, h w / 4, D']."""
        hidden_states = hidden_states if self.norm is None else normalize(self.norm, hidden_states)
        return self.reduction(hidden_states.transpose(1, 2).unflatten(2, grid)).flatten(2).transpose(1, 2)
