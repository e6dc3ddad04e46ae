"""Where a token stands: sinusoidal tables and rotations over one axis (sequences) or two (image patches).

    angle_f(p) = p * base^(-f / F),  f = 0..F-1;   sinusoidal: [sin, cos] of all angles, axis after axis
    rotary: (x_f, x_{f+F}) turned by angle_f(p), each axis in its own share of the head

Both are computed from the positions each time: a buffer would be lost when a model is built on the meta device.

Paper: Vaswani et al., NeurIPS 2017, https://huggingface.co/papers/1706.03762; Su et al., 2021,
https://huggingface.co/papers/2104.09864
"""

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import unset_fake_temporarily
from transformers.modeling_rope_utils import ROPE_INIT_FUNCTIONS


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


class FlowformerRotaryEmbedding(nn.Module):
    """Cosines and sines by `config.rope_parameters`, of every `rope_type` of transformers for sequences.

    The frequencies are kept as numbers: a buffer would be lost on the meta device and rounded by `model.bfloat16()`.
    "dynamic" follows the longest row of a batch, "longrope" has other frequencies from its original length on.
    """

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.rope_type = config.rope_parameters["rope_type"]
        self.make = self.compute_default_rope_parameters
        if self.rope_type != "default":
            self.make = ROPE_INIT_FUNCTIONS[self.rope_type]
        self.long_frequencies = None
        with unset_fake_temporarily(), torch.device("cpu"):
            frequencies, self.attention_scaling = self.make(config)
            self.frequencies = frequencies.tolist()
            if self.rope_type == "longrope":
                beyond = config.rope_parameters["original_max_position_embeddings"] + 1
                self.long_frequencies = self.make(config, seq_len=beyond)[0].tolist()

    @staticmethod
    def compute_default_rope_parameters(config, **_) -> tuple[Tensor, float]:
        """The frequencies of one axis, and the factor of cosines and sines, which is 1."""
        count = config.head_dim // (4 if config.modality == "image" else 2)
        exponents = torch.arange(count, dtype=torch.float32) / count
        return config.rope_parameters["rope_theta"] ** -exponents, 1.0

    def forward(self, coordinates: Tensor) -> tuple[Tensor, Tensor]:
        """Positions [B or 1, L, K] on K axes -> cosines and sines [B or 1, 1, L, D / 2] for `apply_rotary`."""
        angles = (coordinates.float()[..., None] * self._frequencies(coordinates)).flatten(2)[:, None]
        return angles.cos() * self.attention_scaling, angles.sin() * self.attention_scaling

    def _frequencies(self, coordinates: Tensor) -> Tensor:
        if self.rope_type == "dynamic":
            return self.make(self.config, device=coordinates.device, seq_len=coordinates.max() + 1)[0]
        frequencies = torch.tensor(self.frequencies, device=coordinates.device)
        if self.long_frequencies is None:
            return frequencies
        is_long = coordinates.max() >= self.config.rope_parameters["original_max_position_embeddings"]
        return torch.where(is_long, torch.tensor(self.long_frequencies, device=coordinates.device), frequencies)


def apply_rotary(states: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Turn the pairs (x_f, x_{f + D/2}) of [B, H, L, D] states."""
    cos, sin = cos.to(states.dtype), sin.to(states.dtype)
    first, second = states.chunk(2, dim=-1)
    return torch.cat((first * cos - second * sin, second * cos + first * sin), dim=-1)
