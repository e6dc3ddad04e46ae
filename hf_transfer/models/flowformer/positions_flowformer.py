"""Where a token stands: sinusoidal tables and rotations over one axis (sequences) or two (image patches).

    angle_f(p) = p * base^(-f / F),  f = 0..F-1;   sinusoidal: [sin, cos] of all angles, axis after axis
    rotary: (x_f, x_{f+F}) turned by angle_f(p), each axis in its own share of the head

Both are computed from the positions each time: a buffer would be lost when a model is built on the meta device.

Paper: Vaswani et al., NeurIPS 2017, https://huggingface.co/papers/1706.03762; Su et al., 2021,
https://huggingface.co/papers/2104.09864
"""

import torch
from torch import Tensor


def grid_coordinates(height: int, width: int, device: torch.device) -> Tensor:
    """Row and column of each patch in reading order: [1, height * width, 2]."""
    rows, columns = torch.meshgrid(
        torch.arange(height, device=device), torch.arange(width, device=device), indexing="ij"
    )
    return torch.stack((rows, columns), dim=-1).view(1, -1, 2)


def _angles(coordinates: Tensor, num_frequencies: int, base: float) -> Tensor:
    """[B, L, K] positions on K axes -> [B, L, K, F] angles in float32."""
    exponents = torch.arange(num_frequencies, device=coordinates.device, dtype=torch.float32) / num_frequencies
    return coordinates.float()[..., None] * base**-exponents


def sinusoidal_embedding(coordinates: Tensor, dim: int, base: float = 10000.0) -> Tensor:
    """[B, L, K] positions -> [B, L, dim]; `dim` is divisible by 2 K."""
    angles = _angles(coordinates, dim // (2 * coordinates.shape[-1]), base)
    return torch.cat((angles.sin(), angles.cos()), dim=-1).flatten(2)


def rotary_embedding(coordinates: Tensor, head_dim: int, base: float) -> tuple[Tensor, Tensor]:
    """Cosines and sines [B, 1, L, head_dim / 2] that `apply_rotary` turns pairs of features by."""
    angles = _angles(coordinates, head_dim // (2 * coordinates.shape[-1]), base).flatten(2)[:, None]
    return angles.cos(), angles.sin()


def apply_rotary(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_f, x_{f + D/2}) of [B, H, L, D] states."""
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
