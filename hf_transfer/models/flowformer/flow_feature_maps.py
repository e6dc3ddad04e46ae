"""Non-negative feature maps phi of flow attention, and their derivatives read off the features themselves.

    sigmoid: phi(x) = sigmoid(x)        phi'(x) = phi (1 - phi)
    elu:     phi(x) = elu(x) + 1        phi'(x) = min(phi, 1)
    relu:    phi(x) = max(x, 0)         phi'(x) = [phi > 0]

The unbounded two are cut at `FEATURE_LIMIT`: flow attention does not change when all features of a head are scaled, so the
cut only keeps products of features and their squares inside float32.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

import torch
from torch import Tensor

FEATURE_LIMIT = 1e6
FEATURE_MAPS = ("sigmoid", "elu", "relu")


def apply_feature_map(inputs: Tensor, feature_map: str) -> Tensor:
    """phi(inputs), elementwise; `feature_map` is one of `FEATURE_MAPS`."""
    if feature_map == "sigmoid":
        return torch.sigmoid(inputs)
    if feature_map == "relu":
        return inputs.clamp(0, FEATURE_LIMIT)
    # exp(x) instead of elu(x) + 1 keeps the digits of small features
    return torch.where(inputs > 0, inputs.clamp(max=FEATURE_LIMIT) + 1, inputs.clamp(max=0).exp())


def feature_map_gradient(gradient: Tensor, features: Tensor, feature_map: str) -> Tensor:
    """gradient * phi'(x) from features = phi(x); exactly 0 where a masked feature is 0."""
    if feature_map == "sigmoid":
        return torch.ops.aten.sigmoid_backward(gradient, features)
    if feature_map == "relu":
        return gradient * ((features > 0) & (features < FEATURE_LIMIT))
    return gradient * torch.where(features <= FEATURE_LIMIT, features.clamp(max=1), 0)
