"""Margin disparity discrepancy: an adversarial classifier f' measures how far the domains are apart for this model f.

    disparity = E_target[log(1 - softmax(f')_y)] - margin * E_source[-log softmax(f')_y],   y = argmax f
    loss = -disparity, with f' on R(features)

f' descends the loss: it agrees with f on the source and disagrees on the target, which makes the disparity its
supremum; the features ascend it through the gradient reversal R. `margin` is gamma = exp(rho) of the paper.

Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801. Margin 4, width 1024, dropout .5, reversal up to .1 as in its released code.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.adversarial_head import AdversarialHead
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.margin_disparity import margin_disparity_discrepancy


class MDD(Objective):
    """Margin disparity discrepancy with an adversarial head on the features.

    Args:
        margin: gamma, weight of the agreement on the source.
        hidden_size: width of the adversarial head's hidden layer.
        dropout: of that layer, in [0, 1).
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model has fewer than two classes.
    """

    paper = "1904.05801"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "domain"})

    def __init__(
        self,
        margin: float = 4.0,
        hidden_size: int = 1024,
        dropout: float = 0.5,
        max_reversal: float = 0.1,
        warm_start: float = 10.0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(margin=margin, hidden_size=hidden_size, max_reversal=max_reversal, warm_start=warm_start)
        require_share(dropout=dropout)
        self.margin = margin
        self.hidden_size = hidden_size
        self.dropout = dropout
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        context.require_classes(2, "MDD")
        if context.readout is not None and not context.readout.units_are_rows:
            # each of two means counts units, of which processes have different numbers
            self.needs = self.needs | {"global_batch"}
        self.adversarial_head = AdversarialHead(
            context.feature_dim, self.hidden_size, context.num_labels, self.dropout
        )

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        adversarial = self.adversarial_head(gradient_reversal(view.features, coefficient))
        source, target = view.domain == SOURCE, view.domain == TARGET
        return -margin_disparity_discrepancy(
            view.logits[source], adversarial[source], view.logits[target], adversarial[target], self.margin
        )
