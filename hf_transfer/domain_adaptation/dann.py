"""Domain adversarial training: features by which a discriminator cannot tell the domains.

    loss = 1/2 E_source[-log D(R(f))] + 1/2 E_target[-log(1 - D(R(f)))]

R is the gradient reversal layer: the discriminator D descends this loss, the features ascend it, with a coefficient
that grows from 0 to `max_reversal` over the training. With `label_shift: correct` a source row counts as often as its
class is more frequent in the target (IWDAN, https://huggingface.co/papers/2003.04475).

Paper: Ganin et al., "Domain-Adversarial Training of Neural Networks", JMLR 2016,
https://huggingface.co/papers/1505.07818. `hidden_size`, `max_reversal` and `warm_start` as its released code.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.domain_discriminator import DomainDiscriminator, domain_discrimination_loss
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive


class DANN(Objective):
    """Domain adversarial neural network on the features.

    Args:
        hidden_size: width of the discriminator's two hidden layers.
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training; at 10 it is .46 after a tenth.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is not positive.
    """

    paper = "1505.07818"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "domain", "global_batch"})
    weighs_source = True
    is_bounded = True

    def __init__(
        self, hidden_size: int = 1024, max_reversal: float = 1.0, warm_start: float = 10.0, weight: float = 1.0
    ):
        super().__init__(weight)
        require_positive(hidden_size=hidden_size, max_reversal=max_reversal, warm_start=warm_start)
        self.hidden_size = hidden_size
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        self.discriminator = DomainDiscriminator(context.feature_dim, self.hidden_size)

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        domain_logits = self.discriminator(gradient_reversal(view.features, coefficient))
        return domain_discrimination_loss(domain_logits, view.domain, view.unit_weights)
