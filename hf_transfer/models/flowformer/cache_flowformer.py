"""Cache layers of constant size: the running sums of causal flow attention instead of keys and values."""

import torch
from torch import Tensor
from transformers import cache_utils
from transformers.cache_utils import Cache, CacheLayerMixin
from transformers.utils import logging

from .flow_state import FlowState

logger = logging.get_logger(__name__)


class FlowAttentionCacheLayer(CacheLayerMixin):
    """Holds one layer's `FlowState`; `DynamicCache(config=...)` builds it by its name.

    Each tensor of the state is an attribute, and the number of positions the length of one: transformers' exporters
    take tensors as inputs of a graph and whatever else a layer has as constants.
    """

    _layer_type = "flow_attention"
    is_compileable = False
    is_croppable = False
    supports_early_init = False
    is_sliding = False

    def __init__(self, max_cache_len: int | None = None, **kwargs):
        """`max_cache_len` comes from StaticCache; a state of constant size has no use for it."""
        super().__init__()
        self.state = None
        self.seen: Tensor | None = None  # [positions so far, padding included], without memory of its own

    @property
    def state(self) -> FlowState | None:
        """None before the first token."""
        return None if self.memory is None else FlowState(*(getattr(self, name) for name in FlowState._fields))

    @state.setter
    def state(self, state: FlowState | None) -> None:
        for name in FlowState._fields:
            setattr(self, name, None if state is None else getattr(state, name))

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        """The state before the first token, for keys [B, H, L, D] and values [B, H, L, M]."""
        batch_size, num_heads, _, key_dim = key_states.shape
        dtype = torch.promote_types(key_states.dtype, torch.float32)
        self.device = key_states.device
        self.seen = torch.zeros(0, dtype=torch.bool, device=self.device)
        self.state = FlowState.zeros(batch_size, num_heads, key_dim, value_states.shape[-1], dtype, self.device)
        self.is_initialized = True

    def update(self, key_states: Tensor, value_states: Tensor, *args, **kwargs):
        raise NotImplementedError(
            "Flow attention keeps a running state, no keys and values: it cannot `update` a key-value cache. Use "
            "`attn_implementation='flow'` with this cache, or a new cache for another implementation."
        )

    def advance(self, state: FlowState, num_tokens: int) -> None:
        """Store the state after `num_tokens` more positions, padding included."""
        seen = self.get_seq_length() + num_tokens
        self.device = state.memory.device
        self.state = state
        self.seen = torch.zeros(1, dtype=torch.bool, device=self.device).expand(seen)
        self.is_initialized = True

    def get_seq_length(self) -> int:
        return 0 if self.seen is None else self.seen.shape[0]

    def get_max_length(self) -> int:
        return -1

    def get_mask_sizes(self, query_length: int) -> tuple[int, int]:
        return self.get_seq_length() + query_length, 0

    def reset(self) -> None:
        self.state = None
        self.seen = None
        self.is_initialized = False

    def crop(self, tokens_to_remove: int) -> None:
        if tokens_to_remove != 0:
            raise NotImplementedError("The flow state is a sum over tokens: past ones cannot be removed from it.")

    def reorder_cache(self, beam_idx: Tensor) -> None:
        self.batch_select_indices(beam_idx)

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self.state = self.state.repeat_rows(repeats)

    def batch_select_indices(self, indices: Tensor) -> None:
        if self.is_initialized:
            self.state = self.state.map(lambda tensor: tensor[indices.to(tensor.device)])

    def offload(self) -> None:
        if self.is_initialized:
            self.state = self.state.to("cpu", non_blocking=True)

    def prefetch(self) -> None:
        if self.is_initialized:
            self.state = self.state.to(self.device, non_blocking=True)


class StaticFlowAttentionCacheLayer(FlowAttentionCacheLayer):
    """The state at fixed addresses, written in place: a decoding step is one graph. `StaticCache(config=...)` has it.

    It is for generation: no gradient flows through what was written.
    """

    is_compileable = True

    def __init__(self, max_cache_len: int | None = None, **kwargs):
        super().__init__(max_cache_len, **kwargs)
        # a tensor, so that a graph does not depend on how many there were
        self.num_seen = torch.zeros((), dtype=torch.int64)

    def lazy_initialization(self, key_states: Tensor, value_states: Tensor) -> None:
        super().lazy_initialization(key_states, value_states)
        self._hold(self.state)

    def advance(self, state: FlowState, num_tokens: int) -> None:
        if self.is_initialized:
            for held, new in zip(self.state, state):
                held.copy_(new.detach())
        else:
            self._hold(state.map(lambda tensor: tensor.detach().clone()))
        self.num_seen.add_(num_tokens)

    def _hold(self, state: FlowState) -> None:
        self.state, self.device = state, state.memory.device
        self.num_seen = self.num_seen.to(self.device)
        self.is_initialized = True
        # private to PyTorch: without it a graph is right, and is captured anew for other addresses
        mark = getattr(torch._dynamo, "mark_static_address", None)
        if mark is not None and not torch.compiler.is_compiling():
            for tensor in (*state, self.num_seen):
                mark(tensor)

    def get_seq_length(self) -> int | Tensor:
        return self.num_seen if self.is_initialized else 0

    def get_mask_sizes(self, query_length: int) -> tuple[int | Tensor, int]:
        return self.num_seen + query_length, 0

    def reset(self) -> None:
        if self.is_initialized:
            for tensor in (*self.state, self.num_seen):
                tensor.zero_()

    def batch_repeat_interleave(self, repeats: int) -> None:
        if self.is_initialized:
            self._hold(self.state.repeat_rows(repeats))

    def batch_select_indices(self, indices: Tensor) -> None:
        if indices.dtype == torch.bool:
            indices = indices.nonzero().flatten()
        if self.is_initialized and indices.numel() == self.state.num_tokens.shape[0]:
            self.advance(self.state.select_rows(indices), 0)
        elif self.is_initialized:
            self._hold(self.state.select_rows(indices))


def check_lengths(cache: Cache) -> None:
    """Raises ValueError where some layers of a cache know more tokens than others; static ones are not asked."""
    layers = [layer for layer in cache.layers if getattr(layer, "is_initialized", False)]
    lengths = {length for layer in layers if isinstance(length := layer.get_seq_length(), int)}
    if len(lengths) > 1:
        raise ValueError(
            f"the layers of `past_key_values` have seen {sorted(lengths)} tokens: a cache with flow layers cannot be "
            "cropped, and the other layers of this one were. Begin with a new cache."
        )


# transformers' tables of layers by their type, private to it
LAYER_TABLES = {
    "DYNAMIC_LAYER_TYPE_MAPPING": FlowAttentionCacheLayer,
    "STATIC_LAYER_TYPE_MAPPING": StaticFlowAttentionCacheLayer,
}


def register_cache_layers() -> None:
    """DynamicCache and StaticCache then find a layer by its name; a version without their tables is told.

    CacheLayerMixin registers each class that is made under its name, the static one for DynamicCache too.
    """
    for name, layer in LAYER_TABLES.items():
        table = getattr(cache_utils, name, None)
        if table is None:
            logger.warning_once(
                f"This version of transformers has no `cache_utils.{name}`, so its caches know no flow attention: "
                "generate with `use_cache=False`, or install transformers 5.23, with which Flowformer was tested."
            )
        else:
            table[layer._layer_type] = layer


register_cache_layers()


def is_flow(layer) -> bool:
    """By name, not by class: the same class may have been loaded twice, as remote code and from the package."""
    return getattr(layer, "_layer_type", None) == FlowAttentionCacheLayer._layer_type


def cached_rows(cache: Cache | None) -> int | None:
    """The batch size of a cache's first layer, flow state or keys and values; None where it holds nothing yet."""
    layer = cache.layers[0] if cache is not None and cache.layers else None
    if layer is None or not getattr(layer, "is_initialized", False):
        return None
    state = getattr(layer, "state", None)
    tensor = getattr(layer, "keys", None) if state is None else state.num_tokens
    return tensor.shape[0] if torch.is_tensor(tensor) else None
