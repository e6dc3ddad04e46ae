"""Disparity discrepancy for regression: an adversarial regressor f' measures how far the domains are apart for f.

    disparity = E_target |f' - f| - margin * E_source |f' - f|,   f detached
    loss = -disparity, with f' on R(features)

The regression form of MDD: f' agrees with f on the source and departs from it on the target; the features, behind the
gradient reversal R, undo that.

Paper: Zhang et al., "Bridging Theory and Algorithm for Domain Adaptation", ICML 2019,
https://huggingface.co/papers/1904.05801. Margin 1 and the absolute error as in its released regression code.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import REGRESSION
from hf_transfer.domain_adaptation.adversarial_head import AdversarialHead
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive, require_share


class DD(Objective):
    """Disparity discrepancy of a regression model, with an adversarial regressor on the features.

    Args:
        margin: weight of the agreement on the source.
        hidden_size: width of the adversarial regressor's hidden layer.
        dropout: of that layer, in [0, 1).
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1904.05801"
    tasks = frozenset({REGRESSION})
    needs = frozenset({"features", "logits", "domain"})

    def __init__(
        self,
        margin: float = 1.0,
        hidden_size: int = 1024,
        dropout: float = 0.0,
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
        self.adversarial_head = AdversarialHead(
            context.feature_dim, self.hidden_size, context.num_labels, self.dropout
        )

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        adversarial = self.adversarial_head(gradient_reversal(view.features, coefficient))
        disparity = (adversarial - view.logits.detach()).abs().mean(dim=1)  # [B]
        return self.margin * disparity[view.domain == SOURCE].mean() - disparity[view.domain == TARGET].mean()
