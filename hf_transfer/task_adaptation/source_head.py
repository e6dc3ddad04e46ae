"""The head a model was pre-trained with, for methods that keep it beside the new one."""

from __future__ import annotations

import copy

from torch import nn
from transformers import AutoConfig

from hf_transfer.modeling.anatomy import linear_heads
from hf_transfer.modeling.loading import head_class, load_complete
from hf_transfer.models.revisions import at_revision


def copy_source_head(source: nn.Linear | str, feature_dim: int) -> nn.Linear:
    """A copy of the head, from the module itself or from the folder or Hub name of the pre-trained model.

    Args:
        source: the last linear layer of the pre-trained model, or where that model is.
        feature_dim: D, the width of the features it should read.

    Raises:
        ValueError: the model was saved without a classification head, lacks weights, or its head reads features of
            another width.
    """
    if isinstance(source, str):
        folder, stored = at_revision(source)
        loader = head_class(AutoConfig.from_pretrained(folder, **stored))
        source = linear_heads(load_complete(loader, folder, **stored))[-1]
    if source.in_features != feature_dim:
        raise ValueError(
            f"`source_head` should read features of width {feature_dim}, the width of this model's features, got "
            f"{source.in_features}: take the head of the model that is being fine-tuned."
        )
    return copy.deepcopy(source).requires_grad_(True)
