"""SimCLR: the two views of an image find each other among all views of the batch.

    loss = -1/(2B) sum_i log( exp(z_i . z_j(i) / T) / sum_{k != i} exp(z_i . z_k / T) ),   |z| = 1,   z ~ g(f(view))

i runs over the 2B views, j(i) is the other view of the same image, g a projector with batch norms over both views.
Several processes gather their views: negatives and batch norms are those of the whole batch.

Paper: Chen et al., "A Simple Framework for Contrastive Learning of Visual Representations", ICML 2020,
https://huggingface.co/papers/2002.05709. T = .1, two layers as wide as the features and 128 dimensions, as released;
v2 (https://huggingface.co/papers/2006.10029) has `layers: 3`; T = .5 on CIFAR-10. The released code adds the means of
both halves of the views, which is twice this loss. Released training: LARS with rate .3 at batch 256, 10 epochs of
warm-up.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.pretraining.blocks.projection import projection_head


def nt_xent(first: Tensor, second: Tensor, temperature: float) -> Tensor:
    """The normalised, temperature-scaled cross entropy over the views, a scalar.

    Args:
        first: [B, D], views of B images; they are scaled to unit length.
        second: [B, D], the other views of these; likewise.
        temperature: T > 0.
    """
    count = len(first)
    views = F.normalize(torch.cat([first, second]), dim=1)
    similarities = (views @ views.T / temperature).fill_diagonal_(-torch.inf)
    partner = torch.arange(2 * count, device=views.device).roll(count)
    return F.cross_entropy(similarities, partner)


class SimCLR(Objective):
    """Contrast of the views of a batch.

    Args:
        temperature: T > 0.
        projection_dim: width of the projector's output.
        layers: of the projector, at least 1.
        hidden_size: width of its hidden layers; that of the features when left out.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; units are parts of rows.
    """

    paper = "2002.05709"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "views", "global_batch"})
    can_collapse = True
    usual_views = "simclr"

    def __init__(
        self,
        temperature: float = 0.1,
        projection_dim: int = 128,
        layers: int = 2,
        hidden_size: int | None = None,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(temperature=temperature, projection_dim=projection_dim, layers=layers)
        if hidden_size is not None:
            require_positive(hidden_size=hidden_size)
        self.temperature = temperature
        self.projection_dim = projection_dim
        self.layers = layers
        self.hidden_size = hidden_size

    def build(self, context: BuildContext) -> None:
        context.require_rows("SimCLR")
        hidden = [self.hidden_size or context.feature_dim] * (self.layers - 1)
        self.projector = projection_head([context.feature_dim, *hidden, self.projection_dim], last_norm="affine")

    def forward(self, view: View) -> Tensor:
        if len(view.features) < 2:
            return no_loss(view)
        first, second = self.projector(torch.cat([view.features, view.views[0].features])).chunk(2)
        return nt_xent(first, second, self.temperature)
