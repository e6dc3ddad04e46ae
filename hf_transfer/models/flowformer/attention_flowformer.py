"""Flow attention as an attention implementation of transformers, and the attention module of Flowformer.

Importing this file registers `attn_implementation="flow"` for every model that reads the attention interface.
"""

import torch
from torch import Tensor, nn
from transformers.cache_utils import Cache
from transformers.masking_utils import AttentionMaskInterface, bidirectional_mask_function, causal_mask_function
from transformers.modeling_utils import ALL_ATTENTION_FUNCTIONS, AttentionInterface
from transformers.utils import logging

from .cache_flowformer import FlowAttentionCacheLayer, is_flow
from .flow_attention import flow_attention
from .flow_compatibility import PACKED_ERROR, guard_flow_attention
from .flow_packing import Packing
from .positions_flowformer import apply_rotary

logger = logging.get_logger(__name__)

CACHE_ERROR = (
    "Flow attention needs as many queries as keys when causal, got {queries} queries and {keys} keys: it cannot read "
    "a key-value cache, which lacks the past queries. Pass `use_cache=False`."
)
# what other models hand to their attention function that has no meaning without a product per pair of tokens
PER_PAIR_TERMS = ("position_bias", "s_aux", "sinks", "indices", "block_indices")
PACKED_INPUT = ("cu_seq_lens_q", "cu_seq_lens_k", "seq_idx")


def flow_attention_forward(
    module: nn.Module,
    query: Tensor,  # [B, H, L, D]
    key: Tensor,  # [B, G, S, D], G divides H
    value: Tensor,  # [B, G, S, M]
    attention_mask: Tensor | None,  # [B, S] boolean, True = keep
    scaling: float | None = None,
    dropout: float = 0.0,
    is_causal: bool | None = None,
    cache_layer: FlowAttentionCacheLayer | None = None,
    packing: Packing | None = None,
    **kwargs,
) -> tuple[Tensor, None]:
    """Flow attention behind the interface of transformers: output [B, L, H, M] and no attention weights.

    `scaling` has no meaning without a softmax over products; `dropout` acts on the output, for want of weights.
    `cache_layer` continues from its state and stores the new one; `packing` keeps the documents of a row apart, and
    then says itself which tokens are real.

    Cross-attention is right where all queries may see each other. A module, or its configuration, that is such a one
    says so by `allows_flow_cross_attention = True`.

    Raises:
        ValueError: a key-value cache under causal attention, a cross-attention that does not declare itself, a mask
            that is not one boolean per token, several documents in a row, or a term per pair of tokens (a
            relative bias, sinks).
    """
    causal = getattr(module, "is_causal", True) if is_causal is None else is_causal
    _check_call(module, query, key, attention_mask, causal)
    _check_terms(module, kwargs)
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    if packing is None:
        # one copy each here instead of one in every product inside, where transposed heads would be copied each time
        query, key, value = query.contiguous(), key.contiguous(), value.contiguous()
    key_mask = None if attention_mask is None else attention_mask.bool()
    same_tokens = query.shape[2] == key.shape[2] and not _is_cross_attention(module)
    masks = {"key_mask": key_mask, "query_mask": key_mask if same_tokens else None}
    options = {"causal": causal, "cu_seqlens": packing, **masks, **_options_of(module)}
    if cache_layer is None:
        output = flow_attention(query, key, value, **options)
    else:
        state = cache_layer.state
        output, state = flow_attention(query, key, value, state=state, return_state=True, **options)
        cache_layer.advance(state, query.shape[2])
    output = nn.functional.dropout(output, dropout, training=module.training)
    return output.transpose(1, 2).contiguous(), None


def _is_cross_attention(module: nn.Module) -> bool:
    """Queries and keys may be of one length and still not be the same tokens."""
    return getattr(module, "is_cross_attention", False) or "Cross" in type(module).__name__


def _check_call(module: nn.Module, query: Tensor, key: Tensor, attention_mask: Tensor | None, causal: bool) -> None:
    if causal and query.shape[2] != key.shape[2]:
        raise ValueError(CACHE_ERROR.format(queries=query.shape[2], keys=key.shape[2]))
    owners = (module, getattr(module, "config", None))
    # a decoder's attention that is not causal is the one that reads the encoder
    crosses = _is_cross_attention(module) or query.shape[2] != key.shape[2]
    crosses = crosses or any(getattr(owner, "is_decoder", False) for owner in owners)
    if not causal and crosses and not any(getattr(owner, "allows_flow_cross_attention", False) for owner in owners):
        raise ValueError(
            f"Flow attention is no cross-attention for a decoder, got one in {type(module).__name__}: its flows sum "
            "over all queries, so a token would see later ones. Use another `attn_implementation`, or, where all "
            "queries may see each other, set `allows_flow_cross_attention = True` on that module."
        )
    if attention_mask is not None and attention_mask.dim() != 2:
        raise ValueError(
            "Flow attention takes a padding mask of shape [batch, length], got "
            f"{tuple(attention_mask.shape)}: a mask per pair of tokens has no meaning without pairs."
        )


def _check_terms(module: nn.Module, terms: dict) -> None:
    name = type(module).__name__
    found = [term for term in PER_PAIR_TERMS if terms.get(term) is not None]
    if found:
        raise ValueError(
            f"Flow attention has no term per pair of tokens, which {name} adds as {found}: without it the model would "
            "be another one. Use another `attn_implementation`."
        )
    packed = [term for term in PACKED_INPUT if terms.get(term) is not None]
    # bounds of a single document bound nothing
    if packed and any(term == "seq_idx" or terms[term].numel() > 2 for term in packed):
        raise ValueError(PACKED_ERROR.format(name=name, found=packed[0]))
    if terms.get("softcap") is not None:
        logger.warning_once(f"Flow attention has no logits for {name} to cap: `softcap` changes nothing under it.")


def _options_of(module: nn.Module) -> dict:
    config = getattr(module, "config", None)
    names = {"feature_map": "feature_map", "competition_clamp": "competition_clamp"}
    names |= {"flow_eps": "eps", "attn_kernel": "kernel"}
    return {argument: getattr(config, field) for field, argument in names.items() if hasattr(config, field)}


def flow_attention_mask(
    batch_size: int,
    q_length: int,
    kv_length: int,
    q_offset: int | Tensor = 0,
    kv_offset: int = 0,
    mask_function=causal_mask_function,
    attention_mask: Tensor | None = None,
    local_size: int | None = None,
    allow_is_causal_skip: bool = False,
    allow_is_bidirectional_skip: bool = False,
    **kwargs,
) -> Tensor | None:
    """The padding mask [B, S] itself, True = keep; causality is the operation's own.

    Raises:
        ValueError: a pattern that flow attention cannot express (a window shorter than the sequence, packed
            sequences), or a cache.
    """
    # transformers allows no skip where anything but the window shapes the pattern
    may_skip = allow_is_causal_skip or allow_is_bidirectional_skip
    all_in_window = local_size is not None and kv_length <= local_size and may_skip
    if mask_function not in (causal_mask_function, bidirectional_mask_function) and not all_in_window:
        raise ValueError(
            "Flow attention knows padding masks only: windows shorter than the sequence, chunks and packed sequences "
            "need a mask per pair of tokens. Use another `attn_implementation`, or pad instead of packing."
        )
    if mask_function is causal_mask_function and q_length != kv_length:
        raise ValueError(CACHE_ERROR.format(queries=q_length, keys=kv_length))
    if attention_mask is None:
        return None
    if tuple(attention_mask.shape) != (batch_size, kv_length):
        raise ValueError(
            f"`attention_mask` should be of shape {(batch_size, kv_length)}, got {tuple(attention_mask.shape)}."
        )
    return attention_mask.bool()


def register_flow_attention() -> None:
    """Make `attn_implementation="flow"` known to every transformers model; calling it again changes nothing."""
    AttentionInterface.register("flow", flow_attention_forward)
    AttentionMaskInterface.register("flow", flow_attention_mask)
    guard_flow_attention()


register_flow_attention()


def eager_attention_forward(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    dropout: float = 0.0,
    **kwargs,
) -> tuple[Tensor, Tensor]:
    """softmax(Q K^T scaling + mask) V written out, for the vanilla twin with `output_attentions`.

    `attention_mask` is added to the products or, where it is boolean, keeps those that are True.
    """
    scaling = query.shape[-1] ** -0.5 if scaling is None else scaling
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scores = (query @ key.transpose(2, 3)) * scaling
    if attention_mask is not None and attention_mask.dtype == torch.bool:
        scores = scores.masked_fill(~attention_mask, torch.finfo(scores.dtype).min)
    elif attention_mask is not None:
        scores = scores + attention_mask
    weights = nn.functional.softmax(scores, dim=-1, dtype=torch.float32).to(query.dtype)
    weights = nn.functional.dropout(weights, dropout, training=module.training)
    return (weights @ value).transpose(1, 2).contiguous(), weights


class FlowformerAttention(nn.Module):
    """Projections around one attention; all kinds share the same weights.

    `layer_type` is "flow_attention", or another for the softmax attention that `config._attn_implementation` names;
    without it, the latter names flow attention too.
    """

    def __init__(
        self,
        config,
        layer_idx: int,
        hidden_size: int,
        num_heads: int,
        layer_type: str | None = None,
        key_value_heads: int | None = None,
    ):
        super().__init__()
        self.config = config
        self.layer_idx = layer_idx
        self.layer_type = layer_type
        width = config.attention_size or hidden_size
        self.head_dim = width // num_heads
        self.scaling = self.head_dim**-0.5
        self.is_causal = config.is_causal
        # read by transformers' softmax attentions, which repeat keys and values for their group of queries
        self.num_key_value_groups = 1 if key_value_heads is None else num_heads // key_value_heads
        shared = width // self.num_key_value_groups
        self.q_proj = nn.Linear(hidden_size, width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(hidden_size, shared, bias=config.qkv_bias)
        self.v_proj = nn.Linear(hidden_size, shared, bias=config.qkv_bias)
        self.o_proj = nn.Linear(width, hidden_size, bias=config.out_bias)

    def forward(
        self,
        hidden_states: Tensor,  # [B, L, D]
        attention_mask: Tensor | None = None,
        position_embeddings: tuple[Tensor, Tensor] | None = None,
        past_key_values: Cache | None = None,
        packing: Packing | None = None,
        **kwargs,
    ) -> tuple[Tensor, Tensor | None]:
        """`packing` gives each document of a packed row, which flow attention would run together, a row of its own."""
        shape = (*hidden_states.shape[:-1], -1, self.head_dim)
        query, key, value = (
            projection(hidden_states).view(shape).transpose(1, 2)
            for projection in (self.q_proj, self.k_proj, self.v_proj)
        )
        if position_embeddings is not None:
            query, key = apply_rotary(query, *position_embeddings), apply_rotary(key, *position_embeddings)
        implementation = "flow" if self.layer_type == "flow_attention" else self.config._attn_implementation
        if past_key_values is not None and implementation == "flow":
            kwargs["cache_layer"] = self._cache_layer(past_key_values)
        elif past_key_values is not None:
            key, value = past_key_values.update(key, value, self.layer_idx)
        interface = ALL_ATTENTION_FUNCTIONS.get_interface(implementation, eager_attention_forward)
        dropout = self.config.attention_probs_dropout_prob if self.training else 0.0
        options = {"dropout": dropout, "scaling": self.scaling, **kwargs}
        if packing is not None and implementation == "flow":
            options["packing"] = packing
        if self.layer_type == "sliding_attention":
            options["sliding_window"] = self.config.sliding_window
        output, weights = interface(self, query, key, value, attention_mask, **options)
        return self.o_proj(output.flatten(2)), weights

    def _cache_layer(self, past_key_values: Cache) -> FlowAttentionCacheLayer:
        layers = past_key_values.layers
        if self.layer_idx >= len(layers) or not is_flow(layers[self.layer_idx]):
            raise ValueError(
                f"Flow attention continues from a flow state, got a {type(past_key_values).__name__} of keys and "
                "values: build the cache with `DynamicCache(config=model.config)`, or pass `use_cache=False`. Prefix "
                "tuning makes such a cache: use prompt tuning (PromptTuningConfig) or P-tuning (PromptEncoderConfig)."
            )
        return layers[self.layer_idx]
