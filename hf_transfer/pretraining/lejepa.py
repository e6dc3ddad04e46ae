"""LeJEPA: views of an image agree, and the embeddings of every view are spread like an isotropic Gaussian.

    loss = (1 - lambda) mean_{v,i,d} (z_v - c)^2 + lambda mean_v SIGReg(z_v),   c = mean_v z_v,   z = g(f(view))
    SIGReg(z) = N mean_a int w [ (mean_i cos(t a.z_i) - w)^2 + (mean_i sin(t a.z_i))^2 ] dt,   w = exp(-t^2 / 2)

a runs over random directions of unit length, new ones at every step; the integral over [-t_max, t_max] is a trapezoid
sum over `knots` points of its positive half, twice. SIGReg compares the characteristic function of the projections
with that of N(0, 1) (Epps and Pulley's test). There is no teacher, no stopped gradient, no predictor and no queue.
Several processes gather their views, and draw the same directions from `seed` and the progress of the training.

Paper: Balestriero and LeCun, "LeJEPA: Provable and Scalable Self-Supervised Learning Without the Heuristics", 2025,
https://huggingface.co/papers/2511.08544. lambda = .05, 1,024 directions, 17 knots up to 3, a projector of three
layers, 2,048 wide, 64 dimensions, as in lightly 1.6. Both views are global ones here, as large as the image.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.data.visits import seed_of
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.pretraining.blocks.projection import projection_head


def sigreg(embeddings: Tensor, directions: Tensor, knots: int = 17, t_max: float = 3.0) -> Tensor:
    """How far embeddings are from an isotropic Gaussian along the directions; a scalar, about 1 where they are one.

    Args:
        embeddings: [..., N, D]; the mean over all but the last two axes is taken.
        directions: [D, M] of unit length.
        knots: points of the integral over [0, t_max], at least 2.
        t_max: where it ends.
    """
    points = torch.linspace(0, t_max, knots, dtype=embeddings.dtype, device=embeddings.device)
    window = torch.exp(-points.square() / 2)
    angles = (embeddings @ directions).unsqueeze(-1) * points  # [..., N, M, knots]
    gap = (angles.cos().mean(dim=-3) - window).square() + angles.sin().mean(dim=-3).square()
    return 2 * embeddings.shape[-2] * torch.trapezoid(gap * window, points, dim=-1).mean()


def random_directions(width: int, count: int, generator: torch.Generator) -> Tensor:
    """Directions [width, count] of unit length, evenly distributed; drawn on the CPU."""
    return F.normalize(torch.randn(width, count, generator=generator), dim=0)


class LeJEPA(Objective):
    """Agreement of the views, and embeddings like an isotropic Gaussian.

    Args:
        gaussian_share: lambda in [0, 1], the share of SIGReg in the loss.
        directions: how many are drawn at a step.
        knots: points of the integral, at least 2.
        t_max: where it ends, > 0.
        projection_dim: width of the projector's output.
        hidden_size: width of its hidden layers.
        layers: of the projector, at least 1.
        seed: of the directions.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; units are parts of rows.
    """

    paper = "2511.08544"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "views", "global_batch"})
    can_collapse = True
    usual_views = "moco_v2"

    def __init__(
        self,
        gaussian_share: float = 0.05,
        directions: int = 1024,
        knots: int = 17,
        t_max: float = 3.0,
        projection_dim: int = 64,
        hidden_size: int = 2048,
        layers: int = 3,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        if not 0 <= gaussian_share <= 1:
            raise ValueError(f"`gaussian_share` should be in [0, 1], got {gaussian_share}.")
        if knots < 2:
            raise ValueError(f"`knots` should be at least 2, got {knots}.")
        require_positive(directions=directions, t_max=t_max, projection_dim=projection_dim)
        require_positive(hidden_size=hidden_size, layers=layers)
        self.gaussian_share = gaussian_share
        self.directions = directions
        self.knots = knots
        self.t_max = t_max
        self.projection_dim = projection_dim
        self.hidden_size = hidden_size
        self.layers = layers
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        context.require_rows("LeJEPA")
        hidden = [self.hidden_size] * (self.layers - 1)
        self.projector = projection_head([context.feature_dim, *hidden, self.projection_dim])

    def forward(self, view: View) -> Tensor:
        if len(view.features) < 2:
            return no_loss(view)
        pair = torch.cat([view.features, *(one.features for one in view.views)])
        embeddings = self.projector(pair).unflatten(0, (1 + len(view.views), -1))  # [views, B, D]
        agreement = (embeddings - embeddings.mean(dim=0)).square().mean()
        directions = self._directions(view.progress).to(embeddings.device)
        spread = sigreg(embeddings, directions, self.knots, self.t_max)
        return (1 - self.gaussian_share) * agreement + self.gaussian_share * spread

    def _directions(self, progress: float) -> Tensor:
        """[D, M], new ones at every step, alike in all processes and in a resumed run."""
        # a hash, because torch's generator reads the lowest 32 bits of a seed alone
        generator = torch.Generator().manual_seed(seed_of(f"{self.seed} {progress!r}".encode()))
        return random_directions(self.projection_dim, self.directions, generator)
