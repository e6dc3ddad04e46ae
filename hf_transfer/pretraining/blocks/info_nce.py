"""InfoNCE: tell a query's own key from other keys by a softmax over cosine similarities.

    loss = -1/B sum_i log( exp(q_i . k_i / T) / sum_{k in K_i} exp(q_i . k / T) ),   q, k of unit length

K_i holds the keys of the batch, or, where `negatives` are given, the own key k_i and these.

Paper: van den Oord et al., "Representation Learning with Contrastive Predictive Coding", 2018,
https://huggingface.co/papers/1807.03748; with a queue of negatives as He et al., CVPR 2020,
https://huggingface.co/papers/1911.05722.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor


def info_nce(queries: Tensor, keys: Tensor, temperature: float | Tensor, negatives: Tensor | None = None) -> Tensor:
    """The mean loss over the queries, a scalar.

    Args:
        queries: [B, D]; they are scaled to unit length.
        keys: [B, D], row i the own key of query i; they are scaled to unit length.
        temperature: T > 0.
        negatives: [K, D] of unit length; the keys of the other rows when left out.

    Raises:
        ValueError: queries and keys are not of one shape [B, D].
    """
    if queries.ndim != 2 or queries.shape != keys.shape:
        raise ValueError(
            f"`queries` and `keys` should be of one shape [B, D], got {list(queries.shape)} and {list(keys.shape)}."
        )
    queries, keys = F.normalize(queries, dim=1), F.normalize(keys, dim=1)
    if negatives is None:
        similarities = queries @ keys.T
        own = torch.arange(len(queries), device=queries.device)
    else:
        similarities = torch.cat([(queries * keys).sum(dim=1, keepdim=True), queries @ negatives.T], dim=1)
        own = torch.zeros(len(queries), dtype=torch.long, device=queries.device)
    return F.cross_entropy(similarities / temperature, own)
