"""Localised disparity discrepancy: the adversary is confined to hypotheses that are good on the source.

    d(f) = sup over h' in H_r of E_target[disp(h', f)] - E_source[disp(h', f)]
    H_r = {h' : E_source L(h'(x), y) <= r}

The ordinary disparity discrepancy lets h' roam all of H, also where no sensible training would ever end; only near the
source optimum does it say how a model of this source may fail on this target. It is asymmetric: a source that pins the
hypothesis down leaves H_r small, however the target looks.

What is computed is a relaxation of the definition, in four steps:
1. H are linear heads on the shared features, h' = sg(head) + delta with delta starting at zero: h' starts at the
   model's own head and moves along with it.
2. disp is the surrogate of MDD: cross entropy on the source, log(1 - p) on the target, against y = argmax f.
3. The constraint is an exact penalty on the batch: penalty * max(0, E_source CE(h'(x), y) - r). Its features are
   detached: it confines h', and the features cannot gain by making h' fail on the source.
4. The supremum is followed by gradient steps, one with each step of the model, through the gradient reversal R:
       loss = -(E_target[log(1 - softmax(h')_y)] - margin * E_source[CE(h', y)]) + penalty * max(0, ...)

Paper: Zhang et al., "On Localized Discrepancy for Domain Adaptation", https://huggingface.co/papers/2008.06242.
Reversal up to .1 as in MDD's released code; r, penalty and the relaxation are ours. A model that starts from random
weights wants a larger r (1): an adversary tied to its head cannot object, and the target's early answers only harden.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal, warm_start_coefficient
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.margin_disparity import margin_disparity_discrepancy
from hf_transfer.modeling.anatomy import apply_head


class LocalizedDD(Objective):
    """Localised disparity discrepancy with an adversary tied to the model's own head.

    Args:
        radius: r, the largest source cross entropy, in nats, of an admissible hypothesis.
        penalty: price of every nat beyond it.
        margin: weight of the agreement on the source; 1 is the definition.
        max_reversal: final coefficient of the reversed gradient.
        warm_start: how fast the coefficient grows with the progress of the training.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is not positive; at `build`, the model has fewer than two classes.
    """

    paper = "2008.06242"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "labels", "domain", "global_batch"})

    def __init__(
        self,
        radius: float = 0.1,
        penalty: float = 10.0,
        margin: float = 1.0,
        max_reversal: float = 0.1,
        warm_start: float = 10.0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(radius=radius, penalty=penalty, margin=margin)
        require_positive(max_reversal=max_reversal, warm_start=warm_start)
        self.radius = radius
        self.penalty = penalty
        self.margin = margin
        self.max_reversal = max_reversal
        self.warm_start = warm_start

    def build(self, context: BuildContext) -> None:
        context.require_classes(2, "LocalizedDD")
        self.delta = nn.Linear(context.feature_dim, context.num_labels)
        nn.init.zeros_(self.delta.weight)
        nn.init.zeros_(self.delta.bias)

    def adversary(self, features: Tensor, model: nn.Module) -> Tensor:
        """Logits [B, C] of h' on features [B, D]; the head of `model` itself receives no gradient."""
        return apply_head(model, features, detached=True) + self.delta(features)

    def excess_risk(self, view: View) -> Tensor:
        """max(0, E_source CE(h'(x), y) - r) on the labelled source rows, features detached; a scalar."""
        known = (view.domain == SOURCE) & (view.labels != IGNORED_LABEL)
        if not known.any():
            return no_loss(view)
        risk = F.cross_entropy(self.adversary(view.features[known].detach(), view.model), view.labels[known])
        return torch.relu(risk - self.radius)

    def forward(self, view: View) -> Tensor:
        if not has_both_domains(view):
            return no_loss(view)
        coefficient = warm_start_coefficient(view.progress, self.max_reversal, self.warm_start)
        adversarial = self.adversary(gradient_reversal(view.features, coefficient), view.model)
        source, target = view.domain == SOURCE, view.domain == TARGET
        disparity = margin_disparity_discrepancy(
            view.logits[source], adversarial[source], view.logits[target], adversarial[target], self.margin
        )
        return self.penalty * self.excess_risk(view) - disparity
