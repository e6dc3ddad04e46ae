"""Momentum contrast (MoCo v1, v2): a view of an image finds the other view's key among a queue of keys of others.

    loss = -log( exp(q . k / T) / (exp(q . k / T) + sum_{j=1..K} exp(q . n_j / T)) ),   f' <- m f' + (1 - m) f

q = g(f(view 1)) and k = g'(f'(view 2)) of unit length, f' and g' the moving averages of model and projector, n_j the K
newest keys of earlier batches. The queue starts as random unit vectors; keys enter it after the step. Several
processes put all their keys into every queue. What the batch norms of f' do is said in `blocks/momentum_encoder.py`.

Papers: He et al., "Momentum Contrast for Unsupervised Visual Representation Learning", CVPR 2020,
https://huggingface.co/papers/1911.05722; v2: Chen et al., 2020, https://huggingface.co/papers/2003.04297.
K = 65,536, m = .999, 128 dimensions, and T = .2 with a projector of two layers as released for v2; v1 is
`{hidden_layer: false, temperature: 0.07}`. Released training of a ResNet-50: SGD with rate .03 at batch 256, momentum
.9, weight decay 1e-4, cosine, 200 epochs.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all_uneven, share_of_all
from hf_transfer.pretraining.blocks.info_nce import info_nce
from hf_transfer.pretraining.blocks.momentum_encoder import MomentumEncoder
from hf_transfer.pretraining.blocks.projection import projection_head


class MoCo(Objective):
    """Contrast with a queue of keys that a momentum encoder made.

    Args:
        temperature: T > 0.
        queue_size: K, a multiple of the rows of a batch of all processes.
        momentum: m of the key encoder, in [0, 1).
        projection_dim: width of queries and keys.
        hidden_layer: the projector has a hidden layer as wide as the features (v2); otherwise it is linear (v1).
        seed: of the random keys that the queue starts with.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; units are parts of rows; before training, the batch does not divide
            the queue.
    """

    paper = "1911.05722"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "inputs", "views"})
    runs_views = False
    can_collapse = True
    usual_views = "moco_v2"

    def __init__(
        self,
        temperature: float = 0.2,
        queue_size: int = 65_536,
        momentum: float = 0.999,
        projection_dim: int = 128,
        hidden_layer: bool = True,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(temperature=temperature, queue_size=queue_size, projection_dim=projection_dim)
        require_share(momentum=momentum)
        self.temperature = temperature
        self.queue_size = queue_size
        self.momentum = momentum
        self.projection_dim = projection_dim
        self.hidden_layer = hidden_layer
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        context.require_rows("MoCo")
        hidden = [context.feature_dim] if self.hidden_layer else []
        self.projector = projection_head([context.feature_dim, *hidden, self.projection_dim], hidden_norm=False)
        self.key_projector = FrozenCopy(self.projector, self.momentum)
        self.key_encoder = MomentumEncoder(context, self.momentum)
        generator = torch.Generator().manual_seed(self.seed)
        keys = torch.randn(self.queue_size, self.projection_dim, generator=generator)
        self.register_buffer("queue", F.normalize(keys, dim=1))
        self.register_buffer("place", torch.zeros((), dtype=torch.long))
        self._new_keys: list[Tensor] = []

    def check_batch(self, rows: int) -> None:
        if self.queue_size % rows:
            nearest = max(1, self.queue_size // rows) * rows
            raise ValueError(
                f"`queue_size` should be a multiple of the {rows} rows of a batch of all processes, got "
                f"{self.queue_size}: {nearest} is near; or change the batch size."
            )

    def forward(self, view: View) -> Tensor:
        keys = self._keys(view.views[0])
        self._new_keys.append(from_all_uneven(keys))
        loss = info_nce(self.projector(view.features), keys, self.temperature, self.queue)
        return share_of_all(torch.tensor(len(keys), device=loss.device)) * loss

    @torch.no_grad()
    def _keys(self, copies: View) -> Tensor:
        """The keys [B, P] of the second views, of unit length."""
        return F.normalize(self.key_projector(self.key_encoder(copies.inputs)), dim=1)

    def after_step(self, model: nn.Module) -> None:
        self.key_encoder.update(model)
        self.key_projector.update(self.projector)
        for keys in self._new_keys:
            self._enqueue(keys)
        self._new_keys.clear()

    def _enqueue(self, keys: Tensor) -> None:
        """Newest keys in place of the oldest; the last batch of an epoch may have fewer than the others."""
        keys = keys[-self.queue_size :]
        places = (self.place + torch.arange(len(keys), device=keys.device)) % self.queue_size
        self.queue[places] = keys
        self.place.copy_((self.place + len(keys)) % self.queue_size)
