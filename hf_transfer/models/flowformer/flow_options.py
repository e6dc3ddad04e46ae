"""Settings of flow attention and the elementwise functions they choose: feature map phi and competition strength.

    sigmoid: phi(x) = sigmoid(x)        phi'(x) = phi (1 - phi)
    elu:     phi(x) = elu(x) + 1        phi'(x) = min(phi, 1)
    relu:    phi(x) = max(x, 0)         phi'(x) = [phi > 0]
    shifted_relu: phi(x) = max(x, 0) + 1e-6, the released code's on the Long Range Arena. With relu alone a token of a
             narrow head may have no feature above 0 and then reads 0; shifted, it averages over all sources.

The unbounded ones are cut at `FEATURE_LIMIT`: flow attention does not change when all features of a head are scaled,
so the cut only keeps products of features, and their squares, inside float32.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258; defaults are the authors' released ones.
"""

from typing import NamedTuple

import torch
from torch import Tensor

FEATURE_MAPS = ("sigmoid", "elu", "relu", "shifted_relu")
FEATURE_LIMIT = 1e6
FEATURE_SHIFT = 1e-6
# exp(2 * 30) times any length, and 1 / eps^2, stay far inside float32
MAX_COMPETITION_CLAMP = 30.0
MIN_EPS = 1e-12


class FlowOptions(NamedTuple):
    """Settings shared by all forms; call `check` once before use."""

    feature_map: str = "sigmoid"
    competition_clamp: float = 1.0
    eps: float = 1e-6
    chunk_size: int = 64

    def check(self) -> "FlowOptions":
        """Itself, or a ValueError for a setting out of range."""
        feature_map, clamp, eps, chunk_size = self
        if feature_map not in FEATURE_MAPS:
            raise ValueError(f"`feature_map` should be one of {', '.join(FEATURE_MAPS)}, got {feature_map!r}.")
        if clamp is None or not 0 < clamp <= MAX_COMPETITION_CLAMP:
            raise ValueError(
                f"`competition_clamp` should be above 0 and at most {MAX_COMPETITION_CLAMP}, got {clamp}."
            )
        if not MIN_EPS <= eps < 1:
            raise ValueError(f"`eps` should be at least {MIN_EPS} and below 1, got {eps}.")
        if not chunk_size >= 1:
            raise ValueError(f"`chunk_size` should be at least 1, got {chunk_size}.")
        return self

    def features(self, inputs: Tensor, out: Tensor | None = None) -> Tensor:
        """phi(inputs), elementwise; into `out`, if any."""
        if self.feature_map == "sigmoid":
            return torch.sigmoid(inputs, out=out)
        if self.feature_map == "relu":
            return torch.clamp(inputs, 0, FEATURE_LIMIT, out=out)
        if self.feature_map == "shifted_relu":
            return torch.add(inputs.clamp(0, FEATURE_LIMIT), FEATURE_SHIFT, out=out)
        # exp(x) instead of elu(x) + 1 keeps the digits of small features
        return torch.where(inputs > 0, inputs.clamp(max=FEATURE_LIMIT) + 1, inputs.clamp(max=0).exp(), out=out)

    def feature_gradient(self, gradient: Tensor, features: Tensor, out: Tensor | None = None) -> Tensor:
        """gradient * phi'(x) read off features = phi(x), so 0 where a masked feature is 0; into `out`, if any."""
        if self.feature_map == "sigmoid":
            if out is None:
                return torch.ops.aten.sigmoid_backward(gradient, features)
            return torch.ops.aten.sigmoid_backward.grad_input(gradient, features, grad_input=out)
        if self.feature_map == "relu":
            return torch.mul(gradient, (features > 0) & (features < FEATURE_LIMIT), out=out)
        if self.feature_map == "shifted_relu":
            return torch.mul(gradient, (features > FEATURE_SHIFT) & (features < FEATURE_LIMIT), out=out)
        return torch.mul(gradient, torch.where(features <= FEATURE_LIMIT, features.clamp(max=1), 0), out=out)

    def strength(self, sent: Tensor, keep: Tensor | None) -> Tensor:
        """exp(clamp(O^)), the unnormalised competition weight; 0 for masked tokens."""
        strength = sent.clamp(-self.competition_clamp, self.competition_clamp).exp()
        return strength if keep is None else strength * keep

    def strength_gradient(self, gradient: Tensor, sent: Tensor) -> Tensor:
        """d / d O^ from d / d clamp(O^)."""
        return torch.where(sent.abs() <= self.competition_clamp, gradient, 0)


def nonzero(divisor: Tensor) -> Tensor:
    """A sum of strengths made safe to divide by: over no real token it is 0, and then so is the numerator."""
    return divisor.clamp(min=torch.finfo(divisor.dtype).tiny)
