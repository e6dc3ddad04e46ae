"""Heat maps against formulas written naively, and known places."""

import math

import pytest
import torch

from hf_transfer.core.heat_maps import expected_places, gaussian_maps, heat_map_loss, likeliest_places


def test_a_gaussian_stands_around_its_point():
    maps = gaussian_maps(torch.tensor([[0.3, 0.8]]), (5, 10), 1.5)
    assert maps.shape == (1, 5, 10) and maps.sum().item() == pytest.approx(1)
    squares = [[(row + 0.5 - 4) ** 2 + (column + 0.5 - 3) ** 2 for column in range(10)] for row in range(5)]
    values = [[math.exp(-one / (2 * 1.5**2)) for one in row] for row in squares]
    total = sum(map(sum, values))
    assert torch.allclose(maps[0], torch.tensor(values) / total, atol=1e-6)


def test_the_loss_is_the_cross_entropy_of_places_of_seen_points():
    torch.manual_seed(0)
    scores = torch.randn(2, 3, 4, 5, requires_grad=True)
    points = torch.rand(2, 3, 2)
    points[0, 1] = -100
    expected, count = 0.0, 0
    for row in range(2):
        for point in range(3):
            if points[row, point, 0] >= 0:
                target = gaussian_maps(points[row, point], (4, 5), 1.0)
                expected = expected - (target * scores[row, point].flatten().log_softmax(0).reshape(4, 5)).sum()
                count += 1
    expected = expected / count
    loss = heat_map_loss(scores, points, 1.0)
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    (mine,), (theirs,) = (torch.autograd.grad(one, scores, retain_graph=True) for one in (loss, expected))
    assert torch.allclose(mine, theirs, atol=1e-6) and mine[0, 1].abs().max() == 0
    assert heat_map_loss(scores, torch.full((2, 3, 2), -100.0), 1.0) == 0


def test_places_are_found_again():
    points = torch.tensor([[0.35, 0.55], [0.9, 0.1]])
    scores = gaussian_maps(points, (20, 20), 1.0).clamp(min=1e-12).log()
    assert torch.allclose(likeliest_places(scores)[:, :2], points, atol=0.01)
    assert torch.allclose(expected_places(scores)[0], points[0], atol=0.01)  # the other is cut by an edge
    assert (likeliest_places(scores)[:, 2] > 0.1).all()
    corner = torch.zeros(1, 4, 4)
    corner[0, 0, 0] = 50.0
    assert torch.allclose(likeliest_places(corner)[0], torch.tensor([0.125, 0.125, 1.0]), atol=1e-5)
