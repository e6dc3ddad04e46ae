"""Cluster contrast: target rows go to the middle of their own cluster, and away from those of others.

    loss = -(1/B) sum_b log exp(f_b . m_k / T) / sum_j exp(f_b . m_j / T),   k = argmax_j f_b . m_j
    m_j <- momentum m_j + (1 - momentum) mean of the f_b of cluster j, and to unit length

f are target features of unit length. Every `every` steps k-means makes the middles m anew of the last `queue_size`
features; there is no loss before the first time. The target may have other classes than the source, as in retrieval of
persons or things; the loss of the source's classes stands beside this one.

Paper: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022,
https://huggingface.co/papers/2103.11568, temperature .05 as there. There DBSCAN clusters all rows once an epoch, and
the momentum is .1 in batches with 16 pictures of every cluster; k-means as in mutual mean teaching (Ge et al.,
ICLR 2020, https://huggingface.co/papers/2001.01526).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.cluster import KMeans
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all_uneven


class ClusterContrast(Objective):
    """Contrast of target rows with the middles of clusters of target features.

    Args:
        clusters: how many; as many as the model has outputs when left out.
        every: steps between two clusterings.
        queue_size: how many of the last target features are clustered, at least one for each cluster.
        temperature: T > 0.
        momentum: of the middles between clusterings, in [0, 1).
        seed: of k-means.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, there is no number of clusters, or the queue is short.
    """

    paper = "2103.11568"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "domain"})

    def __init__(
        self,
        clusters: int | None = None,
        every: int = 100,
        queue_size: int = 2048,
        temperature: float = 0.05,
        momentum: float = 0.9,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(every=every, queue_size=queue_size, temperature=temperature)
        require_share(momentum=momentum)
        if clusters is not None and clusters < 2:
            raise ValueError(f"`clusters` should be at least 2, got {clusters}.")
        self.clusters = clusters
        self.every = every
        self.queue_size = queue_size
        self.temperature = temperature
        self.momentum = momentum
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        count = self.clusters or context.num_labels
        if count is None or count < 2:
            raise ValueError(f"ClusterContrast: the model has {count} outputs: say how many `clusters`, at least 2.")
        if self.queue_size < count:
            raise ValueError(f"`queue_size` should be at least {count}, one for each cluster, got {self.queue_size}.")
        self.register_buffer("middles", torch.zeros(count, context.feature_dim))
        self.register_buffer("queue", torch.zeros(self.queue_size, context.feature_dim))
        self.register_buffer("seen", torch.zeros((), dtype=torch.long))
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))
        self._newest: list[Tensor] = []

    @property
    def is_clustered(self) -> bool:
        return bool(self.middles.any())

    def forward(self, view: View) -> Tensor:
        features = F.normalize(view.target.features, dim=1)
        self._newest.append(from_all_uneven(features.detach()))
        if not len(features) or not self.is_clustered:
            return no_loss(view)
        scores = features @ self.middles.T
        return F.cross_entropy(scores / self.temperature, scores.argmax(dim=1))

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        for features in self._newest:
            self._follow(features)
            features = features[-self.queue_size :]
            places = (self.seen + torch.arange(len(features), device=features.device)) % self.queue_size
            self.queue[places] = features
            self.seen += len(features)
        self._newest.clear()
        self.steps += 1
        if self.steps % self.every == 0 and self.seen >= len(self.middles):
            self._cluster()

    def _follow(self, features: Tensor) -> None:
        """The middles follow features [B, D] of their clusters."""
        if not self.is_clustered or not len(features):
            return
        own = F.one_hot((features @ self.middles.T).argmax(dim=1), len(self.middles)).to(features.dtype)
        counts = own.sum(dim=0).unsqueeze(1)
        means = (own.T @ features) / counts.clamp(min=1)
        moved = F.normalize(self.momentum * self.middles + (1 - self.momentum) * means, dim=1)
        self.middles.copy_(torch.where(counts > 0, moved, self.middles))

    def _cluster(self) -> None:
        """Middles of k-means of what the queue holds, on every process the same."""
        held = self.queue[: min(int(self.seen), self.queue_size)].float().cpu().numpy()
        found = KMeans(len(self.middles), n_init=1, random_state=self.seed).fit(held).cluster_centers_
        self.middles.copy_(F.normalize(torch.from_numpy(found).to(self.middles), dim=1))
