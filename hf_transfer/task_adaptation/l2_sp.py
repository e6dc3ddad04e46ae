"""Weight decay towards the starting point instead of towards zero.

    loss = alpha/2 sum_{backbone} ||w - w0||^2 + beta/2 sum_{head} ||w||^2

Paper: Li et al., "Explicit Inductive Bias for Transfer Learning with Convolutional Networks", ICML 2018,
https://huggingface.co/papers/1802.01483. alpha = .1 and beta = .01 as in the paper. Turn the
optimizer's own weight decay off: it pulls the backbone to zero.
"""

from __future__ import annotations

from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_non_negative
from hf_transfer.functional.weight_distance import half_squared_distance
from hf_transfer.modeling.anatomy import backbone_parameter_names, head_parameter_names
from hf_transfer.task_adaptation.starting_point import NamedTensors, named_parameters


class L2SP(Objective):
    """Squared distance of the backbone from its starting point, and the squared norm of the head.

    Args:
        alpha: strength on the backbone, >= 0.
        beta: strength on the head, >= 0.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `alpha` or `beta` is negative.
    """

    paper = "1802.01483"
    tasks = ANY_PROBLEM
    needs = frozenset({"weights"})

    def __init__(self, alpha: float = 0.1, beta: float = 0.01, weight: float = 1.0):
        super().__init__(weight)
        require_non_negative(alpha=alpha, beta=beta)
        self.alpha = alpha
        self.beta = beta

    def build(self, context: BuildContext) -> None:
        self.head_names = head_parameter_names(context.model)
        self.start = NamedTensors(
            named_parameters(context.model, backbone_parameter_names(context.model)), persistent=False
        )

    def forward(self, view: View) -> Tensor:
        backbone = named_parameters(view.model, self.start.names).values()
        starts = [self.start[name] for name in self.start.names]
        loss = no_loss(view) + self.alpha * half_squared_distance(list(backbone), starts)
        for parameter in named_parameters(view.model, self.head_names).values():
            loss = loss + self.beta / 2 * parameter.square().sum()
        return loss
