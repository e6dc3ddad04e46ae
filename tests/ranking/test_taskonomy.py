from itertools import combinations

import numpy as np
import pytest

from hf_transfer.ranking import Transfer, choose_sources, task_affinities
from hf_transfer.ranking.taskonomy import single_source_transfers


def test_a_consistent_tournament_recovers_its_odds():
    weights = np.array([0.5, 0.3, 0.2])
    rng = np.random.default_rng(0)
    # Exponential losses of rate w_i: source i beats j with probability w_i / (w_i + w_j).
    losses = rng.exponential(1 / weights[:, None], size=(3, 400_000))[None]
    assert task_affinities(losses)[0] == pytest.approx(weights, abs=5e-3)


def test_ordinal_affinities_ignore_the_scale_of_the_loss():
    losses = np.random.default_rng(1).random((2, 4, 500))
    assert task_affinities(np.exp(3 * losses)) == pytest.approx(task_affinities(losses))
    assert task_affinities(losses).sum(axis=1) == pytest.approx(np.ones(2))


def test_a_source_that_always_wins_takes_nearly_all():
    losses = np.stack([np.zeros(100), np.ones(100), np.ones(100)])[None]
    affinities = task_affinities(losses)[0]
    assert affinities[0] > 0.99 and affinities[1] == pytest.approx(affinities[2])


def best_by_trying_all(affinities, importance, costs, budget):
    best = -np.inf
    for size in range(1, affinities.shape[1] + 1):
        for chosen in combinations(range(affinities.shape[1]), size):
            if sum(costs[source] for source in chosen) <= budget:
                best = max(best, (importance * affinities[:, list(chosen)].max(axis=1)).sum())
    return best


@pytest.mark.parametrize("budget", [2, 3.5, 5, 10])
def test_the_choice_is_the_best_of_all_subsets(budget):
    rng = np.random.default_rng(2)
    affinities, importance, costs = rng.random((5, 6)), rng.random(5), rng.uniform(0.5, 2, 6)
    plan = choose_sources(single_source_transfers(affinities), budget, costs=costs, importance=importance)
    assert plan.value == pytest.approx(best_by_trying_all(affinities, importance, costs, budget))
    assert sum(costs[source] for source in plan.sources) <= budget
    assert [transfer.target for transfer in plan.transfers] == list(range(5))


def test_a_higher_order_transfer_needs_all_its_sources():
    transfers = [Transfer((0,), 0, 0.5), Transfer((1,), 0, 0.4), Transfer((0, 1), 0, 0.9)]
    assert choose_sources(transfers, 1).transfers == (transfers[0],)
    plan = choose_sources(transfers, 2)
    assert plan.transfers == (transfers[2],) and plan.sources == (0, 1)


def test_bad_input_is_refused():
    with pytest.raises(ValueError, match="No choice of sources"):
        choose_sources([Transfer((0,), 0, 1.0)], 0.5)
    with pytest.raises(ValueError, match="empty"):
        choose_sources([], 1)
    with pytest.raises(ValueError, match="`costs`"):
        choose_sources([Transfer((3,), 0, 1.0)], 1, costs=[1.0])
    with pytest.raises(ValueError, match=r"targets, sources, rows"):
        task_affinities(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="not finite"):
        task_affinities(np.full((1, 2, 3), np.nan))
