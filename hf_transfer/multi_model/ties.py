"""TIES: task vectors are trimmed, agree on a sign for every parameter, and only those of that sign are averaged.

    theta = theta_0 + scale mean_{k: sign(d_k) = s} d_k,   d_k = top share of theta_k - theta_0,   s = sign sum_k d_k

d_k keeps of the whole task vector, which is of the parameters of the backbone, the given share of largest magnitude;
the mean is over the models that kept a parameter with the sign s. Heads and moving statistics are averaged.

Paper: Yadav et al., "TIES-Merging: Resolving Interference When Merging Models", NeurIPS 2023,
https://huggingface.co/papers/2306.01708; the top 20 % and a scale of 1 as there without held-out rows. Trimming, signs
and mean are PEFT's; LoRA adapters of one model are merged so by its `add_weighted_adapter(...,
combination_type="ties")`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from peft.utils import merge_utils
from torch import Tensor
from transformers import PreTrainedModel

from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.multi_model.soup import Soup, in_float32, loaded, uniform_soup, with_weights
from hf_transfer.multi_model.task_vectors import start_of


@torch.no_grad()
def merge_ties(
    models: Sequence[str | PreTrainedModel],
    base: str | PreTrainedModel,
    density: float = 0.2,
    scale: float = 1.0,
) -> Soup:
    """The merged model.

    Args:
        models: fine-tuned from one start, with the same labels; or their folders.
        base: their start, with any head or none; a folder, a Hub id or the model.
        density: share of each task vector that is kept, in (0, 1).
        scale: of the merged task vector, positive.

    Raises:
        ValueError: no model, one that cannot be loaded, tensors of other names or shapes, or a number out of range.
    """
    require_positive(density=density, scale=scale)
    if density >= 1:
        raise ValueError(f"`density` should be in (0, 1), the share of a task vector that is kept, got {density}.")
    mean = uniform_soup(models)
    start = start_of(mean.model, base)
    vectors = [vector_of(loaded(source, mean.model).state_dict(), start) for source in models]
    merged = merge_utils.ties(vectors, torch.ones(len(vectors)), density)
    state = in_float32(mean.model.state_dict())
    parts = merged.split([value.numel() for value in start.values()])
    for (name, value), part in zip(start.items(), parts, strict=True):
        state[name] = value + scale * part.reshape(value.shape)
    return Soup(with_weights(mean.model, state, 1.0), mean.kept)


def vector_of(state: Mapping[str, Tensor], start: Mapping[str, Tensor]) -> Tensor:
    """The task vector of a model, [P] of all P parameters of the start side by side."""
    return torch.cat([(state[name].to(value) - value).flatten() for name, value in start.items()])
