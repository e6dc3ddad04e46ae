"""MixStyle: in training, rows take on a mixture of their own and another row's style in early layers.

    y = gamma (x - mu(x)) / sigma(x) + beta
    gamma = l sigma(x) + (1 - l) sigma(x'),   beta = l mu(x) + (1 - l) mu(x'),   l ~ Beta(alpha, alpha)

mu and sigma are a row's mean and deviation of each channel over the places of a map [B, C, H, W], or over the real
tokens of a sequence [B, T, D]; no gradient flows through them. x' is the same batch in another order. A forward is
mixed with probability p, all its chosen layers by their own draws.

Paper: Zhou et al., "Domain Generalization with MixStyle", ICLR 2021, https://huggingface.co/papers/2104.02008. p = .5,
alpha = .1, after the first two stages as in the paper. The draws come from torch's own generator as dropout's do: the
Trainer seeds it and stores it in every checkpoint.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.converter import converts
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.anatomy import backbone_of, stacked_layers
from hf_transfer.modeling.surgery import Sidecar, keep_sidecar

EPS = 1e-6


@converts()
def convert(
    model: nn.Module, *, p: float = 0.5, alpha: float = 0.1, layers: Sequence[int | str] = (0, 1)
) -> nn.Module:
    """Mix styles after some layers of a model, in place and in training only.

    Args:
        model: a Hugging Face model whose layers give maps [B, C, H, W] or sequences [B, T, D].
        p: probability that a forward is mixed, in [0, 1].
        alpha: of the Beta distribution.
        layers: places among the backbone's layers or stages, or names of modules.

    Raises:
        ValueError: a keyword is out of its range, there is no such layer, or the model was converted before.
    """
    if not 0 <= p <= 1:
        raise ValueError(f"`p` should be in [0, 1], got {p}.")
    require_positive(alpha=alpha)
    chosen = chosen_layers(model, layers)
    keep_sidecar(model, "mix_style", Sidecar())
    mixer = Mixer(p, alpha)
    backbone_of(model).register_forward_pre_hook(mixer.note_mask, with_kwargs=True)
    for layer in chosen:
        layer.register_forward_hook(mixer)
    return model


convert.paper = "2104.02008"


def chosen_layers(model: nn.Module, layers: Sequence[int | str]) -> list[nn.Module]:
    """The modules that `layers` names.

    Raises:
        ValueError: the backbone has no such place, or the model no module of this name.
    """
    modules = dict(model.named_modules())
    stack = stacked_layers(backbone_of(model))
    found = []
    for layer in layers:
        if isinstance(layer, str) and layer in modules:
            found.append(modules[layer])
        elif isinstance(layer, int) and 0 <= layer < len(stack):
            found.append(stack[layer])
        else:
            raise ValueError(
                f"`layers` should be places from 0 to {len(stack) - 1} or names of modules of "
                f"{type(model).__name__}, got {layer!r}."
            )
    return found


class Mixer:
    """The hook after a layer: mixes what the layer gives while it is in training."""

    def __init__(self, p: float, alpha: float):
        self.p = p
        self.alpha = alpha
        self.mask: Tensor | None = None
        self.mixes = False

    def note_mask(self, module: nn.Module, args: tuple, kwargs: dict[str, Any]) -> None:
        """Before the backbone's forward: which tokens are real, and whether this forward is mixed."""
        mask = kwargs.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        self.mixes = module.training and torch.rand(()).item() < self.p

    def __call__(self, layer: nn.Module, args: tuple, output: Any) -> Any:
        """The layer's output with mixed styles; where it is a tuple, its first entry."""
        if not (layer.training and self.mixes):
            return output
        states = output[0] if isinstance(output, tuple) else output
        if states.ndim not in (3, 4):
            raise ValueError(f"MixStyle reads [B, C, H, W] or [B, T, D], and this layer gives {list(states.shape)}.")
        order = torch.randperm(len(states)).to(states.device)
        share = torch.distributions.Beta(self.alpha, self.alpha).sample((len(states),)).to(states.device)
        mixed = mix_styles(states, order, share, self._real(states))
        return (mixed, *output[1:]) if isinstance(output, tuple) else mixed

    def _real(self, states: Tensor) -> Tensor | None:
        """Real tokens [B, T, 1] of sequences, where the model was told which they are."""
        fits = self.mask is not None and states.ndim == 3 and self.mask.shape == states.shape[:2]
        return self.mask.to(states.dtype).unsqueeze(-1) if fits else None


def mix_styles(states: Tensor, order: Tensor, share: Tensor, real: Tensor | None = None) -> Tensor:
    """Rows with mixed means and deviations, of the shape of `states`.

    Args:
        states: [B, C, H, W] or [B, T, D].
        order: [B], the row whose style each row takes on.
        share: [B], of the own style.
        real: [B, T, 1], 1 = real token; all are when left out.
    """
    over = (2, 3) if states.ndim == 4 else (1,)
    values = states.detach().float()
    weights = torch.ones_like(values[:, :, :1] if states.ndim == 3 else values[:, :1]) if real is None else real
    count = weights.sum(over, keepdim=True).clamp_min(1)
    mean = (values * weights).sum(over, keepdim=True) / count
    deviation = (((values - mean).square() * weights).sum(over, keepdim=True) / count + EPS).sqrt()
    share = share.reshape(-1, *[1] * (states.ndim - 1))
    gamma = share * deviation + (1 - share) * deviation[order]
    beta = share * mean + (1 - share) * mean[order]
    return (gamma * (states - mean) / deviation + beta).to(states.dtype)
