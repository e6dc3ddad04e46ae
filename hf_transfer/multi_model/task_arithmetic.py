"""Task arithmetic: the start of several fine-tuned models, moved by the sum of their task vectors.

    theta = theta_0 + scale sum_k ( theta_k - theta_0 )

for the parameters of the backbone; heads and moving statistics are averaged. With K models and scale 1/K it is the
uniform soup.

Paper: Ilharco et al., "Editing Models with Task Arithmetic", ICLR 2023, https://huggingface.co/papers/2212.04089. The
scale is chosen on held-out rows there; .3 is what published comparisons of merged models use. LoRA adapters of one
model are merged so by PEFT: `add_weighted_adapter(..., combination_type="linear")`.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from transformers import PreTrainedModel

from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.multi_model.soup import Soup, in_float32, uniform_soup, with_weights
from hf_transfer.multi_model.task_vectors import start_of


@torch.no_grad()
def merge_task_arithmetic(
    models: Sequence[str | PreTrainedModel], base: str | PreTrainedModel, scale: float = 0.3
) -> Soup:
    """The merged model.

    Args:
        models: fine-tuned from one start, with the same labels; or their folders, which are loaded one at a time.
        base: their start, with any head or none; a folder, a Hub id or the model.
        scale: of the sum of task vectors, positive.

    Raises:
        ValueError: no model, one that cannot be loaded, tensors of other names or shapes, or `scale` out of its range.
    """
    require_positive(scale=scale)
    mean = uniform_soup(models)
    start = start_of(mean.model, base)
    of_mean = scale * len(models)  # the sum of task vectors is K times that of the mean
    state = {
        name: start[name].lerp(value, of_mean) if name in start else value
        for name, value in in_float32(mean.model.state_dict()).items()
    }
    return Soup(with_weights(mean.model, state, 1.0), mean.kept)
