"""BiT's norms: group norms and standardised weights in place of batch norms, in any convolutional net of transformers.

    y = gamma (x - mean_g) / sqrt(var_g + 1e-5) + beta,   What = (W - mean(W)) / sqrt(var(W) + eps)

mean_g and var_g are a row's own, of one of 32 groups of channels, so that a row's output does not depend on the rest
of the batch: batches of one row train, and several processes need not tell each other statistics. mean(W) and var(W)
are of the weights of one filter, over its inputs and its kernel. Convolutions with a bias, which by custom no norm
follows (squeeze-and-excitation), and filters of a single weight stay as they are.

Where channels are no multiple of 32 there are as many groups as the largest divisor below it. The statistics of a
trained model's batch norms are lost: convert before pre-training, not before fine-tuning. The saved folder is one of
the model type `group_normed`, see `hf_transfer.models.group_normed`, which may be adapted and loaded as any other.

Paper: Kolesnikov et al., "Big Transfer (BiT): General Visual Representation Learning", ECCV 2020,
https://huggingface.co/papers/1912.11370. 32 groups and eps 1e-10 as in the released code; transformers' BitModel has
1e-8. The norms' own eps is 1e-5 in both.
"""

from __future__ import annotations

from torch import nn

from hf_transfer.core.converter import converts
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.models.group_normed import group_normed


@converts(changes_outputs=True)
def convert(model: nn.Module, *, groups: int = 32, eps: float = 1e-10) -> nn.Module:
    """Change the norms and convolutions of a model in place; its parameters and their names stay.

    Args:
        model: a Hugging Face model with batch norms, as an Auto class makes it.
        groups: of channels, at most so many; the largest divisor of the channels is taken.
        eps: added to the variance of a filter's weights.

    Raises:
        ValueError: a keyword is out of its range, the model has no batch norm or one of a class of its own, was
            converted before, or is of a class that no Auto class knows.
    """
    require_positive(groups=groups, eps=eps)
    try:
        group_normed(unwrap_peft(model), groups, eps)
    except ValueError as error:
        raise ValueError(f"`bit`: {error}") from error
    return model


convert.paper = "1912.11370"
