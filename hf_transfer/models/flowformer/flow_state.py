"""The constant-size state of causal flow attention: all that a prefix leaves behind, however long it was.

Per head four D-vectors, one scalar and one D x M matrix, and per row the number of real tokens seen.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258
"""

from collections.abc import Callable
from typing import NamedTuple

import torch
from torch import Tensor


class FlowState(NamedTuple):
    """Prefix sums over the real tokens of each row; a pytree, so that compile and checkpointing see its tensors."""

    key_sum: Tensor  # [B, H, D] sum_j phi(k_j)
    query_sum: Tensor  # [B, H, D] sum_i phi(q_i)
    key_flow: Tensor  # [B, H, D] sum_j phi(k_j) n_j / O_j
    query_flow: Tensor  # [B, H, D] sum_i phi(q_i) n_i / I_i
    competition: Tensor  # [B, H] sum_j exp(O^_j)
    memory: Tensor  # [B, H, D, M] sum_j phi(k_j)^T V^_j
    num_tokens: Tensor  # [B] int64, real tokens seen

    @classmethod
    def zeros(
        cls,
        batch_size: int,
        num_heads: int,
        key_dim: int,
        value_dim: int | None = None,
        dtype: torch.dtype = torch.float32,
        device: torch.device | str | None = None,
    ) -> "FlowState":
        """The state before the first token; `value_dim` defaults to `key_dim`."""
        value_dim = key_dim if value_dim is None else value_dim
        shape, options = (batch_size, num_heads), {"dtype": dtype, "device": device}
        return cls(
            *(torch.zeros(*shape, key_dim, **options) for _ in range(4)),
            torch.zeros(*shape, **options),
            torch.zeros(*shape, key_dim, value_dim, **options),
            torch.zeros(batch_size, dtype=torch.int64, device=device),
        )

    def map(self, function: Callable[[Tensor], Tensor]) -> "FlowState":
        """The state with `function` applied to each tensor."""
        return FlowState(*(function(tensor) for tensor in self))

    def select_rows(self, rows: Tensor) -> "FlowState":
        """Row `rows[i]` of the batch becomes row i: beam reordering and row selection; rows: [B'] int64."""
        return self.map(lambda tensor: tensor.index_select(0, rows.to(tensor.device)))

    def repeat_rows(self, repeats: int) -> "FlowState":
        """Each row `repeats` times in succession, as `num_return_sequences` and beams need."""
        return self.map(lambda tensor: tensor.repeat_interleave(repeats, dim=0))

    def detach(self) -> "FlowState":
        """The state cut from the graph, as truncated back-propagation through time needs."""
        return self.map(lambda tensor: tensor.detach())

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "FlowState":
        """The state on another device; dtypes stay, since the sums are kept in full precision."""
        return self.map(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    @property
    def num_bytes(self) -> int:
        """Bytes of all tensors; the same whatever the length of the context."""
        return sum(tensor.numel() * tensor.element_size() for tensor in self)
