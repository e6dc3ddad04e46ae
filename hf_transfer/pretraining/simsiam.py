"""SimSiam: a predictor maps either view of an image onto the other, which gives no gradient.

    loss = -1/2 mean_i [ cos(p1_i, stop(z2_i)) + cos(p2_i, stop(z1_i)) ],   z = g(f(view)),   p = h(z)

f is the model, g a projector, h a predictor with a narrow hidden layer. There are no negatives, no queue and no
momentum encoder; without the stop the features become the same for all rows. The predictor's learning rate stays as it
is at the start while that of the rest follows the schedule. Several processes gather their views: the heads' batch
norms are over the whole batch, a view at a time.

Paper: Chen and He, "Exploring Simple Siamese Representation Learning", CVPR 2021,
https://huggingface.co/papers/2011.10566. As released: a projector of three layers, hidden ones as wide as the
features, 2,048 dimensions, a predictor 512 wide, a batch norm without gain and shift after the projector and none
after the predictor. The released last layer of the projector has a frozen bias, which the batch norm behind it takes
away again: here it has none. Released training of a ResNet-50: SGD with rate .05 at batch 256, momentum .9, weight
decay 1e-4, cosine without warm-up.
"""

from __future__ import annotations

from collections.abc import Iterable

import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.pretraining.blocks.projection import projection_head


def negative_cosine(predictions: Tensor, targets: Tensor) -> Tensor:
    """Minus the mean cosine of rows [B, D] and targets [B, D], a scalar; no gradient reaches the targets."""
    return -F.cosine_similarity(predictions, targets.detach(), dim=1).mean()


class SimSiam(Objective):
    """Prediction of one view from the other, with a stopped gradient.

    Args:
        projection_dim: width of the projector's output.
        hidden_size: width of the predictor's hidden layer.
        layers: of the projector, at least 1.
        constant_rate: the predictor's learning rate stays constant.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; units are parts of rows.
    """

    paper = "2011.10566"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "views", "global_batch"})
    can_collapse = True
    usual_views = "moco_v2"

    def __init__(
        self,
        projection_dim: int = 2048,
        hidden_size: int = 512,
        layers: int = 3,
        constant_rate: bool = True,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(projection_dim=projection_dim, hidden_size=hidden_size, layers=layers)
        self.projection_dim = projection_dim
        self.hidden_size = hidden_size
        self.layers = layers
        self.constant_rate = constant_rate

    def build(self, context: BuildContext) -> None:
        context.require_rows("SimSiam")
        width = context.feature_dim
        self.projector = projection_head([width] * self.layers + [self.projection_dim], last_norm="plain")
        self.predictor = projection_head([self.projection_dim, self.hidden_size, self.projection_dim])

    def constant_rate_parameters(self) -> Iterable[nn.Parameter]:
        return self.predictor.parameters() if self.constant_rate else ()

    def forward(self, view: View) -> Tensor:
        if len(view.features) < 2:
            return no_loss(view)
        first, second = (self.projector(one.features) for one in (view, view.views[0]))
        forth = negative_cosine(self.predictor(first), second)
        back = negative_cosine(self.predictor(second), first)
        return (forth + back) / 2
