"""Stochastic normalisation: each channel takes the statistics of the batch or the moving ones, by chance, in training.

    z_c = s_c (x_c - mean_batch) / sqrt(var_batch + eps) + (1 - s_c) (x_c - mean_moving) / sqrt(var_moving + eps)
    y_c = weight_c z_c + bias_c,   s_c ~ Bernoulli(p), drawn anew in every forward

p = 1 is batch normalisation, p = 0 uses the moving statistics alone; these are updated and, in evaluation, used as
always. The branch with pre-trained moving statistics keeps a fine-tuned model near its start where data are few.

Layer normalisation has no moving statistics. With `layer_norm=True` the mean and the variance that a token has over
its features are averaged over tokens and steps, two numbers a layer, and take the place of the moving statistics; a
token's own take that of the batch's. In evaluation it is plain layer normalisation. The paper has no such variant.

Paper: Kou et al., "Stochastic Normalization", NeurIPS 2020,
https://proceedings.neurips.cc/paper/2020/hash/bc573864331a9e42e4511de6f678aa83-Abstract.html. p = .5 as in the paper.
The draws come from torch's own generator as dropout's do: the Trainer seeds it and stores it in every checkpoint.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from hf_transfer.core.converter import converts
from hf_transfer.modeling.surgery import Sidecar, keep_sidecar, modules_where, reclass, sidecars_of

MOMENTUM = 0.1
"""Share of the newest batch in the moving statistics of layer norms, as batch norm's default."""


@converts()
def convert(model: nn.Module, *, p: float = 0.5, layer_norm: bool = False) -> nn.Module:
    """Make the norms of a model stochastic, in place; names and values of its parameters stay.

    Args:
        model: a Hugging Face model with batch norms, or any with layer norms where `layer_norm` is true.
        p: probability of the batch's statistics, in [0, 1].
        layer_norm: convert layer norms too.

    Raises:
        ValueError: `p` is out of its range, the model has no norm to convert, or was converted before, by `dsbn` too.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"`p` should be in [0, 1], got {p}.")
    batch_norms = modules_where(model, lambda one: isinstance(one, _BatchNorm) and one.track_running_stats)
    layer_norms = modules_where(model, lambda one: isinstance(one, nn.LayerNorm)) if layer_norm else {}
    if not batch_norms and not layer_norms:
        rest = "" if layer_norm else "; `layer_norm: true` converts layer norms"
        raise ValueError(f"`stoch_norm`: {type(model).__name__} has no batch norm with moving statistics{rest}.")
    if "dsbn" in sidecars_of(model):
        raise ValueError(
            "`stoch_norm` after `dsbn`: name `stoch_norm` first, which makes every domain's norms stochastic."
        )
    sidecar = MovingStatistics(layer_norms)
    keep_sidecar(model, "stoch_norm", sidecar)
    for norm in batch_norms.values():
        channel_dim = 1 if type(norm).forward is _BatchNorm.forward else -1
        reclass(norm, StochasticBatch, p=p, channel_dim=channel_dim)
    for name, norm in layer_norms.items():
        reclass(norm, StochasticLayer, p=p, moving=sidecar.layers[name.replace(".", "_")])
    return model


convert.paper = "https://proceedings.neurips.cc/paper/2020/hash/bc573864331a9e42e4511de6f678aa83-Abstract.html"


class StochasticBatch:
    """The forward of a batch norm whose channels choose their statistics; mixed into the norm's own class."""

    def forward(self, states: Tensor, *args, **kwargs) -> Tensor:
        if not self.training:
            return super().forward(states, *args, **kwargs)
        shape = [1] * states.ndim
        shape[self.channel_dim] = self.num_features
        # before the batch's own update, and apart from it, because the backward pass reads them
        mean, variance = (value.clone().reshape(shape) for value in (self.running_mean, self.running_var))
        moving = (states - mean) * (variance + self.eps).rsqrt()
        if self.affine:
            moving = moving * self.weight.reshape(shape) + self.bias.reshape(shape)
        chosen = drawn(self.num_features, self.p, states.device).reshape(shape)
        batch = super().forward(states, *args, **kwargs)
        return torch.where(chosen, batch, moving.to(batch.dtype))


class StochasticLayer:
    """The forward of a layer norm whose features choose their statistics; mixed into the norm's own class."""

    def forward(self, states: Tensor, *args, **kwargs) -> Tensor:
        own = super().forward(states, *args, **kwargs)
        if not self.training:
            return own
        mean, variance = self.moving.updated(states, len(self.normalized_shape))
        moving = (states - mean) * (variance + self.eps).rsqrt()
        if self.weight is not None:
            moving = moving * self.weight
        if self.bias is not None:
            moving = moving + self.bias
        chosen = drawn(own.shape[-1], self.p, states.device)
        return torch.where(chosen, own, moving.to(own.dtype))


class MovingMoments(nn.Module):
    """Moving mean and variance that a token has over its features, of one layer norm."""

    def __init__(self):
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))
        self.register_buffer("variance", torch.ones(()))
        self.register_buffer("batches", torch.zeros((), dtype=torch.long))

    @torch.no_grad()
    def updated(self, states: Tensor, dims: int) -> tuple[Tensor, Tensor]:
        """The moments before these states, which then join them; of the first batch its own."""
        over = tuple(range(-dims, 0))
        newest = states.float().mean(over).mean(), states.float().var(over, correction=0).mean()
        share = torch.where(self.batches == 0, 1.0, 0.0)
        before = self.mean.lerp(newest[0], share), self.variance.lerp(newest[1], share)
        self.mean.copy_(before[0].lerp(newest[0], MOMENTUM))
        self.variance.copy_(before[1].lerp(newest[1], MOMENTUM))
        self.batches.add_(1)
        return before


class MovingStatistics(Sidecar):
    """The moving statistics of all converted layer norms, which a plain model has no place for."""

    def __init__(self, layer_norms: dict[str, nn.Module]):
        super().__init__()
        self.layers = nn.ModuleDict({name.replace(".", "_"): MovingMoments() for name in layer_norms})


def drawn(count: int, p: float, device: torch.device) -> Tensor:
    """Which channels take the statistics of the batch, [count] bool."""
    return torch.rand(count, device=device) < p
