"""Partial adversarial domain adaptation: source classes that the target seems not to have count less.

    gamma_c = mean over target rows of softmax(logits / T)_c, divided by its maximum
    loss = [ sum_s gamma_{y_s} CE_s / sum_s gamma_{y_s} - mean_s CE_s ]
           + trade_off * ( 1/2 E_source[-gamma_y log D(R(f))] + 1/2 E_target[-log(1 - D(R(f)))] )

The bracket turns the task loss, which the model adds with weight 1, into the class-weighted one. The paper recomputes
gamma on the whole target set every few hundred steps; here it is a moving average over the batches. From random
weights give it an `objective_warmup`: early wrong answers would decide which classes the model learns.

Paper: Cao et al., "Partial Adversarial Domain Adaptation", ECCV 2018, https://huggingface.co/papers/1808.04205. T =
.1 as in its released code, which needs it because undertrained predictions are flat.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL, row_losses
from hf_transfer.domain_adaptation.domain_discriminator import DomainDiscriminator, domain_discrimination_loss
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive, require_share


class PADA(Objective):
    """Class-weighted adversarial adaptation for a target that has only some of the source's classes.

    Args:
        temperature: T, sharpens the target predictions that the class weights are made of.
        momentum: of the class weights' moving average, in [0, 1).
        trade_off: factor of the adversarial part.
        hidden_size: width of the discriminator's two hidden layers.
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        weight: factor of the whole; leave it at 1, at which the task loss is exactly the class-weighted one.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1808.04205"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "labels", "domain", "global_batch"})
    label_space = "partial"

    def __init__(
        self,
        temperature: float = 0.1,
        momentum: float = 0.99,
        trade_off: float = 1.0,
        hidden_size: int = 1024,
        max_reversal: float = 1.0,
        warm_start: float = 10.0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(temperature=temperature, hidden_size=hidden_size)
        require_positive(max_reversal=max_reversal, warm_start=warm_start)
        require_share(momentum=momentum)
        require_non_negative(trade_off=trade_off)
        self.temperature = temperature
        self.momentum = momentum
        self.trade_off = trade_off
        self.hidden_size = hidden_size
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        self.discriminator = DomainDiscriminator(context.feature_dim, self.hidden_size)
        self.register_buffer("class_shares", torch.full((context.num_labels,), 1.0 / context.num_labels))

    @torch.no_grad()
    def class_weights(self, target_logits: Tensor) -> Tensor:
        """gamma, [C] with maximum 1, after the target rows' logits [B, C] entered the average."""
        shares = (target_logits / self.temperature).softmax(dim=1).mean(dim=0)
        self.class_shares.lerp_(shares.to(self.class_shares.dtype), 1.0 - self.momentum)
        return self.class_shares / self.class_shares.max()

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        class_weights = self.class_weights(view.target.logits)
        labelled = (view.domain == SOURCE) & (view.labels != IGNORED_LABEL)
        weights = torch.ones_like(view.logits[:, 0])
        weights[labelled] = class_weights[view.labels[labelled]].to(weights.dtype)
        correction = no_loss(view)
        if labelled.any():
            losses = row_losses(view.logits[labelled], view.labels[labelled], SINGLE_LABEL, view.label_smoothing)
            shares = weights[labelled] / weights[labelled].sum().clamp_min(torch.finfo(weights.dtype).tiny)
            correction = (shares * losses).sum() - losses.mean()
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        domain_logits = self.discriminator(gradient_reversal(view.features, coefficient))
        return correction + self.trade_off * domain_discrimination_loss(domain_logits, view.domain, weights)
