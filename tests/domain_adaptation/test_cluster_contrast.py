"""Cluster contrast against its formula, and middles that are those of the data."""

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.domain_adaptation.cluster_contrast import ClusterContrast


def made(**keywords) -> ClusterContrast:
    objective = ClusterContrast(**{"clusters": 3, "every": 2, "queue_size": 32, **keywords})
    objective.build(BuildContext(torch.nn.Identity(), 5, 4))
    return objective


def blobs(rows=24, seed=0) -> torch.Tensor:
    """Rows around three directions of five, in turn."""
    generator = torch.Generator().manual_seed(seed)
    return torch.eye(5)[torch.arange(rows) % 3] * 3 + 0.1 * torch.randn(rows, 5, generator=generator)


def view_of(features: torch.Tensor, source: int = 0) -> View:
    return View(features=features, domain=(torch.arange(len(features)) >= source).long())


def clustered(**keywords) -> ClusterContrast:
    objective = made(**keywords)
    for seed in (0, 1):
        assert objective(view_of(blobs(seed=seed))) == 0
        objective.after_step(None)
    return objective


def test_value_and_gradient_against_the_formula():
    objective = clustered(temperature=0.3)
    features = blobs(7, seed=5).requires_grad_()
    loss = objective(view_of(features, source=2))
    total = 0.0
    for row in features[2:]:
        cosines = torch.stack([F.cosine_similarity(row, middle, dim=0) for middle in objective.middles])
        total = total - (cosines / 0.3).log_softmax(dim=0)[cosines.argmax()]
    torch.testing.assert_close(loss, total / 5)
    mine, theirs = (torch.autograd.grad(one, features, retain_graph=True)[0] for one in (loss, total / 5))
    torch.testing.assert_close(mine, theirs)
    assert not mine[:2].any(), "the source is not clustered"


def test_middles_are_those_of_the_clusters_and_follow_them():
    objective = clustered()
    nearest = (torch.eye(5)[:3] @ objective.middles.T).argmax(dim=1)
    assert sorted(nearest.tolist()) == [0, 1, 2]
    torch.testing.assert_close(objective.middles[nearest], torch.eye(5)[:3], atol=0.1, rtol=0)
    objective = clustered(momentum=0.5, every=3)
    assert not objective.is_clustered, "every third step"
    objective = clustered(momentum=0.5)
    before, new = objective.middles.clone(), torch.tensor([[1.0, 0.2, 0.0, 0.0, 0.0]])
    objective(view_of(new))
    objective.after_step(None)
    own = (F.normalize(new, dim=1) @ before.T).argmax()
    expected = F.normalize(0.5 * before[own] + 0.5 * F.normalize(new, dim=1)[0], dim=0)
    torch.testing.assert_close(objective.middles[own], expected)
    others = [place for place in range(3) if place != own]
    assert torch.equal(objective.middles[others], before[others])


def test_the_queue_holds_the_last_features():
    objective = made(every=1000)
    for seed in range(3):
        objective(view_of(blobs(seed=seed)))
        objective.after_step(None)
    last = F.normalize(blobs(seed=2), dim=1)
    places = torch.arange(48, 72) % 32
    torch.testing.assert_close(objective.queue[places], last)
    assert objective.seen == 72


@pytest.mark.parametrize(
    ("keywords", "message"),
    [({"clusters": 1}, "`clusters` should be at least 2"), ({"temperature": 0.0}, "`temperature` should be positive")],
)
def test_keywords_out_of_range(keywords, message):
    with pytest.raises(ValueError, match=message):
        ClusterContrast(**keywords)


def test_too_short_a_queue_and_no_number_of_clusters():
    with pytest.raises(ValueError, match="`queue_size` should be at least 3"):
        made(queue_size=2)
    objective = ClusterContrast()
    objective.build(BuildContext(torch.nn.Identity(), 5, 4))
    assert objective.middles.shape == (4, 5)
    with pytest.raises(ValueError, match="say how many `clusters`"):
        ClusterContrast().build(BuildContext(torch.nn.Identity(), 5, None))


def dense(**keywords) -> ClusterContrast:
    """After two steps of three groups of rows and four rows far from all."""
    settings = {"clusters": None, "clustering": "dbscan", "neighbours": 8, "queue_size": 56, "temperature": 0.3}
    objective = made(**{**settings, **keywords})
    far = F.normalize(
        torch.tensor([[-1.0, 0, 0, 0.3, 0], [0, -1, 0, 0, 0], [0, 0, -1, 0, 0], [0, 0, 0, 0, -1]]), dim=1
    )
    for seed in (0, 1):
        objective(view_of(torch.cat([blobs(seed=seed), far + 0.2 * seed])))
        objective.after_step(None)
    return objective


def test_density_finds_the_clusters_and_leaves_rows_out():
    objective = dense()
    found = objective.middles[objective.middles.any(dim=1)]
    assert len(found) == 3 and sorted((torch.eye(5)[:3] @ found.T).argmax(dim=1).tolist()) == [0, 1, 2]
    assert objective.reach[:3].min() > 0.9
    far = torch.tensor([[0.0, 0.0, 0.0, 0.0, -1.0], [1.0, 1.0, 0.0, 0.0, 0.0]])
    assert objective(view_of(far.requires_grad_())) == 0, "no row is near a middle"
    near = torch.eye(5)[:2] * 3
    loss = objective(view_of(torch.cat([near, far])))
    cosines = F.normalize(near, dim=1) @ found.T
    expected = -(cosines / 0.3).log_softmax(dim=1).max(dim=1).values.mean()
    torch.testing.assert_close(loss, expected)
    before = objective.middles.clone()
    objective.after_step(None)
    moved = (objective.middles - before).norm(dim=1) > 0
    assert moved.sum() == 2, "rows far from all move no middle"


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"clustering": "means"}, "`clustering` should be one of"),
        ({"clustering": "dbscan", "clusters": 3}, "`clusters` are found by `clustering: dbscan`"),
        ({"within": 1.5}, "`within` should be at most 1"),
        ({"least": 0}, "`least` should be positive"),
    ],
)
def test_keywords_of_density_out_of_range(keywords, message):
    with pytest.raises(ValueError, match=message):
        ClusterContrast(**keywords)


def test_a_queue_shorter_than_the_neighbours():
    with pytest.raises(ValueError, match="`queue_size` should be at least 30, to have so many `neighbours`"):
        made(clusters=None, clustering="dbscan", queue_size=20)
