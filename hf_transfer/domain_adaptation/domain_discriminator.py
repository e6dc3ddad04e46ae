"""The network that tells source rows from target rows, and the loss it is trained with.

    D -> hidden -> BN -> ReLU -> hidden -> BN -> ReLU -> 1
    loss = 1/2 mean_{source} w_i softplus(-d_i) + 1/2 mean_{target} w_i softplus(d_i)

d is the logit of "source". Width and normalisation are those of the released code of DANN and CDAN.
"""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.functional.keyword_checks import require_positive


class DomainDiscriminator(nn.Sequential):
    """A perceptron with two hidden layers and one output, the logit of "this row is a source row".

    Args:
        in_features: width of its input.
        hidden_size: width of both hidden layers.

    Shape: [B, in_features] -> [B]. In training it normalises over the batch, so B should be at least 2.

    Raises:
        ValueError: `hidden_size` is not positive.
    """

    def __init__(self, in_features: int, hidden_size: int = 1024):
        require_positive(hidden_size=hidden_size)
        layers: list[nn.Module] = []
        for width in (in_features, hidden_size):
            layers += [nn.Linear(width, hidden_size), nn.BatchNorm1d(hidden_size), nn.ReLU()]
        super().__init__(*layers, nn.Linear(hidden_size, 1), nn.Flatten(start_dim=0))


def domain_discrimination_loss(domain_logits: Tensor, domain: Tensor, weights: Tensor | None = None) -> Tensor:
    """Binary cross entropy of the domains, each domain with half of the weight whatever its number of rows.

    Args:
        domain_logits: [B], positive for source.
        domain: [B], 0 = source, 1 = target; both should occur.
        weights: [B] or None for all ones.

    Returns:
        A scalar; log 2 where the discriminator knows nothing.
    """
    losses = F.binary_cross_entropy_with_logits(
        domain_logits, (domain == SOURCE).to(domain_logits.dtype), weight=weights, reduction="none"
    )
    return 0.5 * (losses[domain == SOURCE].mean() + losses[domain == TARGET].mean())
