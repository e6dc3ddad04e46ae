"""Self-ensembling: a mean teacher's confident predictions on the target, and classes that are predicted equally often.

    loss = (1/B) sum_b 1[c_b] (1/C) ||p_b - q_b||^2 + balance * (1/B) sum_b 1[c_b] * sum_c BCE(mean_b p_bc, 1/C)
    p = softmax(student(x'')),   q = softmax(teacher(x')),   c_b: max q_b >= threshold
    BCE(p, u) = -u log p - (1 - u) log(1 - p),   teacher <- m teacher + (1 - m) student

x' and x'' are the two augmented copies of the target rows. The confidence threshold takes the place of a ramp.

Paper: French et al., "Self-ensembling for visual domain adaptation", ICLR 2018,
https://huggingface.co/papers/1706.05208. Momentum .99, threshold .968, balance .005 and weight 3 as in its released
code. As MeanTeacher's, the momentum starts lower, so that the random start of a head is forgotten quickly. The paper
has batch norms of their own for both domains: the converter `dsbn`.
"""

from __future__ import annotations

import torch
from torch import Tensor

from hf_transfer.core.objective import TARGET, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.mean_teacher import MeanTeacher
from hf_transfer.domain_adaptation.self_training import target_view_pair
from hf_transfer.functional.keyword_checks import require_non_negative
from hf_transfer.functional.processes import from_all

EPS = 1e-6


def class_balance(probabilities: Tensor) -> Tensor:
    """Summed binary cross entropy of the mean prediction of every class against 1/C, a scalar.

    Args:
        probabilities: [B, C].
    """
    mean, share = probabilities.mean(dim=0), 1.0 / probabilities.shape[1]
    return -(share * (mean + EPS).log() + (1.0 - share) * (1.0 - mean + EPS).log()).sum()


class SelfEnsembling(MeanTeacher):
    """Consistency with a confident averaged teacher, and balanced classes.

    Args:
        momentum: of the moving average, in [0, 1).
        threshold: least probability of a teacher's prediction that counts, in [0, 1).
        balance: factor of the class balance term.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; in training, the batch has no second view.
    """

    paper = "1706.05208"
    tasks = frozenset({SINGLE_LABEL})

    def __init__(self, momentum: float = 0.99, threshold: float = 0.968, balance: float = 0.005, weight: float = 3.0):
        super().__init__(momentum, threshold, weight=weight)
        require_non_negative(balance=balance)
        self.balance = balance

    def forward(self, view: View) -> Tensor:
        target_view_pair(view)
        is_target = view.domain == TARGET
        expected, confident = torch.zeros_like(view.views[0].logits), torch.zeros_like(is_target)
        if is_target.any():
            _, expected[is_target], confident[is_target] = self.compared(view)
        # The balance of the classes is one of the whole batch: the rows of all processes, of which each has as many.
        counted = from_all(is_target.long()).bool()
        if not counted.any():
            return no_loss(view)
        predicted = from_all(view.views[0].logits.softmax(dim=1), differentiable=True)[counted]
        expected, confident = from_all(expected)[counted], from_all(confident.long())[counted]
        consistency = ((predicted - expected).square().mean(dim=1) * confident).mean()
        return consistency + self.balance * confident.to(torch.float32).mean() * class_balance(predicted)
