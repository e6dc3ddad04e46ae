"""Importance weighted adversarial nets: source rows that look like no target row count less.

    w_s = (1 - D(f_s)) / mean_s (1 - D(f_s)),   D trained on detached features with the plain domain loss
    loss = BCE(D) + 1/2 E_source[-w log D0(R(f))] + 1/2 E_target[-log(1 - D0(R(f)))] + entropy_weight * E_target H

D finds the source rows outside the target's support; D0 then aligns what remains.

Paper: Zhang et al., "Importance Weighted Adversarial Nets for Partial Domain Adaptation", CVPR 2018,
https://huggingface.co/papers/1803.09210
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.domain_discriminator import DomainDiscriminator, domain_discrimination_loss
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, prediction_entropy, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive


class IWAN(Objective):
    """Adversarial adaptation with source rows weighted by a second discriminator, for partial label spaces.

    Args:
        entropy_weight: factor of the mean entropy of the target predictions.
        hidden_size: width of both discriminators' hidden layers.
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1803.09210"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "domain", "global_batch"})
    label_space = "partial"

    def __init__(
        self,
        entropy_weight: float = 0.1,
        hidden_size: int = 1024,
        max_reversal: float = 1.0,
        warm_start: float = 10.0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(entropy_weight=entropy_weight)
        require_positive(hidden_size=hidden_size, max_reversal=max_reversal, warm_start=warm_start)
        self.entropy_weight = entropy_weight
        self.hidden_size = hidden_size
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        self.weigher = DomainDiscriminator(context.feature_dim, self.hidden_size)
        self.discriminator = DomainDiscriminator(context.feature_dim, self.hidden_size)

    @staticmethod
    def row_weights(weigher_logits: Tensor, domain: Tensor) -> Tensor:
        """w, [B], detached: of mean 1 over the source rows, and 1 for every target row."""
        weights = torch.ones_like(weigher_logits)
        unlike_source = torch.sigmoid(-weigher_logits.detach()[domain == SOURCE])
        weights[domain == SOURCE] = unlike_source / unlike_source.mean().clamp_min(torch.finfo(weights.dtype).tiny)
        return weights

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        weigher_logits = self.weigher(view.features.detach())
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        domain_logits = self.discriminator(gradient_reversal(view.features, coefficient))
        weights = self.row_weights(weigher_logits, view.domain)
        return (
            domain_discrimination_loss(weigher_logits, view.domain)
            + domain_discrimination_loss(domain_logits, view.domain, weights)
            + self.entropy_weight * prediction_entropy(view.logits[view.domain == TARGET]).mean()
        )
