"""From a sequence of hidden states to what a classifier reads: one vector a row, made of real tokens only."""

import torch
from torch import Tensor, nn


def pool(hidden_states: Tensor, attention_mask: Tensor | None, pooling: str) -> Tensor:
    """[B, L, D] -> [B, D]: the mean of real tokens, or the first or last one; `attention_mask` [B, L], 1 = real."""
    if attention_mask is None:
        return hidden_states.mean(1) if pooling == "mean" else hidden_states[:, 0 if pooling == "first" else -1]
    mask = attention_mask.to(hidden_states.device).bool()
    if pooling == "mean":
        total = hidden_states.masked_fill(~mask[..., None], 0).sum(1)
        return total / mask.sum(1, keepdim=True).clamp(min=1)
    positions = torch.arange(mask.shape[1], device=mask.device)
    chosen = (positions.flip(0) if pooling == "first" else positions) * mask
    return hidden_states[torch.arange(mask.shape[0], device=mask.device), chosen.argmax(1)]


def classifier_dropout(config) -> nn.Dropout:
    """Dropout before a classifier: `config.classifier_dropout`, or the hidden dropout where it is not set."""
    return nn.Dropout(config.hidden_dropout_prob if config.classifier_dropout is None else config.classifier_dropout)
