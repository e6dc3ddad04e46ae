"""Cluster contrast: target rows go to the middle of their own cluster, and away from those of others.

    loss = -(1/B) sum_b log exp(f_b . m_k / T) / sum_j exp(f_b . m_j / T),   k = argmax_j f_b . m_j
    m_j <- momentum m_j + (1 - momentum) mean of the f_b of cluster j, and to unit length

f are target features of unit length. Every `every` steps k-means or DBSCAN makes the middles m anew of the last
`queue_size` features; there is no loss before the first time. DBSCAN, on Jaccard distances of k-reciprocal neighbours,
finds how many clusters there are, and leaves rows out: those in no cluster, and of a batch those that are farther from
every middle than the rows of its cluster were. The target may have other classes than the source, as in retrieval of
persons or things; the loss of the source's classes stands beside this one.

Paper: Dai et al., "Cluster Contrast for Unsupervised Person Re-Identification", ACCV 2022,
https://huggingface.co/papers/2103.11568, temperature .05 and at least 4 rows near each other as there. There DBSCAN
clusters all rows once an epoch, within .4 to .7 by data set (.6 in SpCL, Ge et al., NeurIPS 2020,
https://huggingface.co/papers/2006.02713), and the momentum is .1 in batches with 16 pictures of every cluster; k-means
as in mutual mean teaching (Ge et al., ICLR 2020, https://huggingface.co/papers/2001.01526).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from sklearn.cluster import DBSCAN, KMeans
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.reciprocal_neighbours import jaccard_distances
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all_uneven

KMEANS, DENSITY = CLUSTERINGS = ("kmeans", "dbscan")
EVERYWHERE = -2.0
"""Less than any cosine."""


class ClusterContrast(Objective):
    """Contrast of target rows with the middles of clusters of target features.

    Args:
        clusters: how many of k-means; as many as the model has outputs when left out.
        every: steps between two clusterings.
        queue_size: how many of the last target features are clustered, at least one for each cluster.
        clustering: "kmeans" or "dbscan".
        within: of DBSCAN, the largest Jaccard distance of neighbours, in (0, 1].
        least: of DBSCAN, how many rows within that distance begin a cluster.
        neighbours: of DBSCAN, k of the k-reciprocal neighbours.
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
        clustering: str = KMEANS,
        within: float = 0.6,
        least: int = 4,
        neighbours: int = 30,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(every=every, queue_size=queue_size, temperature=temperature, least=least, within=within)
        require_positive(neighbours=neighbours)
        require_share(momentum=momentum)
        if clustering not in CLUSTERINGS:
            raise ValueError(f"`clustering` should be one of {list(CLUSTERINGS)}, got {clustering!r}.")
        if clustering == DENSITY and clusters is not None:
            raise ValueError("`clusters` are found by `clustering: dbscan`: leave one of both out.")
        if within > 1:
            raise ValueError(f"`within` should be at most 1, got {within}.")
        if clusters is not None and clusters < 2:
            raise ValueError(f"`clusters` should be at least 2, got {clusters}.")
        self.clusters = clusters
        self.clustering = clustering
        self.within = within
        self.least = least
        self.neighbours = neighbours
        self.every = every
        self.queue_size = queue_size
        self.temperature = temperature
        self.momentum = momentum
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        is_density = self.clustering == DENSITY
        count = self.queue_size // self.least if is_density else self.clusters or context.num_labels
        if not is_density and (count is None or count < 2):
            raise ValueError(f"ClusterContrast: the model has {count} outputs: say how many `clusters`, at least 2.")
        fewest = max(self.neighbours, 2 * self.least) if is_density else count
        if self.queue_size < fewest:
            what = "to have so many `neighbours`" if is_density else "one for each cluster"
            raise ValueError(f"`queue_size` should be at least {fewest}, {what}, got {self.queue_size}.")
        self._fewest = fewest
        self.register_buffer("middles", torch.zeros(count, context.feature_dim))
        self.register_buffer("reach", torch.full((count,), EVERYWHERE))
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
        scores, own, is_near = self._nearest(features)
        if not is_near.any():
            return no_loss(view)
        return F.cross_entropy(scores[is_near] / self.temperature, own[is_near])

    def _nearest(self, features: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Cosines [B, K] with the middles, the nearest middle [B], and whether it is as near as its rows."""
        scores = (features @ self.middles.T).masked_fill(~self.middles.any(dim=1), -torch.inf)
        nearest, own = scores.max(dim=1)
        return scores, own, nearest >= self.reach[own]

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
        if self.steps % self.every == 0 and self.seen >= self._fewest:
            self._cluster()

    def _follow(self, features: Tensor) -> None:
        """The middles follow features [B, D] of their clusters."""
        if not self.is_clustered or not len(features):
            return
        _, own, is_near = self._nearest(features)
        own = F.one_hot(own, len(self.middles)).to(features.dtype) * is_near.unsqueeze(1)
        counts = own.sum(dim=0).unsqueeze(1)
        means = (own.T @ features) / counts.clamp(min=1)
        moved = F.normalize(self.momentum * self.middles + (1 - self.momentum) * means, dim=1)
        self.middles.copy_(torch.where(counts > 0, moved, self.middles))

    def _cluster(self) -> None:
        """Middles of the clusters of what the queue holds, on every process the same."""
        held = self.queue[: min(int(self.seen), self.queue_size)].float().cpu()
        if self.clustering == KMEANS:
            found = KMeans(len(self.middles), n_init=1, random_state=self.seed).fit(held.numpy()).cluster_centers_
            self.middles.copy_(F.normalize(torch.from_numpy(found).to(self.middles), dim=1))
            return
        distances = jaccard_distances(held.numpy(), self.neighbours)
        labels = DBSCAN(eps=self.within, min_samples=self.least, metric="precomputed").fit(distances).labels_
        self.middles.zero_()
        self.reach.fill_(EVERYWHERE)
        for number in range(min(labels.max() + 1, len(self.middles))):
            members = held[torch.from_numpy(labels == number)]
            middle = F.normalize(members.mean(dim=0), dim=0)
            self.middles[number] = middle.to(self.middles)
            self.reach[number] = (members @ middle).min().to(self.reach)
