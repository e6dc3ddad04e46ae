from itertools import combinations

import numpy as np
import pytest
from typer.testing import CliRunner

from hf_transfer.cli.app import app
from hf_transfer.ranking import Ranking, RankingRow, Score, budgeted_choice, probability_of_beating
from hf_transfer.ranking.budget import odds
from hf_transfer.ranking.taskonomy import CLIP

NAMES, PARAMETERS = ["a", "b", "c"], [30, 10, 20]


def ranking(*values: float, shards: bool = True) -> Ranking:
    """Of the models a, b, c with these scores; with shards their uncertainty is known."""
    generator = np.random.default_rng(0)
    rows = []
    for name, value, parameters in zip(NAMES, values, PARAMETERS):
        noise = generator.normal(scale=0.01, size=8)
        score = Score(value, 0.01, tuple(value + noise - noise.mean()) if shards else ())
        rows.append(RankingRow(name, value, layer=1, layers={1: score}, parameters=parameters))
    rows.append(RankingRow("random", 9.0, layer=1, layers={1: Score(9.0, None)}, is_baseline=True, parameters=1))
    return Ranking((*rows, RankingRow("failed", reason="no weights")))


def test_odds_against_the_probabilities():
    rows = ranking(0.3, 0.31, 0.1).candidates
    first, second = (row.layers[1] for row in rows[:2])
    wins = probability_of_beating(first, second)
    assert 0.5 < wins < 1 - CLIP
    matrix = odds(rows)
    assert matrix[0, 1] == pytest.approx(wins / (1 - wins)) and matrix[1, 0] == pytest.approx(1 / matrix[0, 1])
    assert np.diag(matrix) == pytest.approx(np.ones(3))


def test_one_model_for_all_or_the_best_for_each():
    """c is second for both targets, of which a and b are the best of one and the worst of the other."""
    rankings = {"one": ranking(0.9, 0.1, 0.8), "two": ranking(0.1, 0.9, 0.8)}
    choice = budgeted_choice(rankings, budget=2)
    assert choice.models == ("a", "b") and choice.starts == {"one": "a", "two": "b"} and choice.cost == 2
    assert choice.affinities["one"] > 0.5
    near = {"one": ranking(0.31, 0.0, 0.305), "two": ranking(0.0, 0.31, 0.305)}
    assert budgeted_choice(near, budget=2).models == ("a", "b") and budgeted_choice(near, budget=1).models == ("c",)


@pytest.mark.parametrize("budget", [10, 25, 30, 60])
def test_within_parameters_it_is_the_best_of_all_sets(budget):
    rankings = {"one": ranking(0.5, 0.49, 0.4), "two": ranking(0.3, 0.31, 0.32), "three": ranking(0.2, 0.2, 0.25)}
    choice = budgeted_choice(rankings, budget, cost="parameters")
    affinity = {}
    for label, one in rankings.items():
        values, vectors = np.linalg.eig(odds(one.candidates))
        weights = np.abs(vectors[:, values.real.argmax()].real)
        affinity[label] = dict(zip([row.model for row in one.candidates], weights / weights.sum()))
    sets = [chosen for size in (1, 2, 3) for chosen in combinations(NAMES, size)]
    sets = [one for one in sets if sum(PARAMETERS[NAMES.index(name)] for name in one) <= budget]
    best = max(sum(max(affinity[label][name] for name in one) for label in rankings) for one in sets)
    assert sum(choice.affinities.values()) == pytest.approx(best) and choice.cost <= budget


def test_scores_without_uncertainty():
    choice = budgeted_choice({"one": ranking(0.1, 0.3, 0.2, shards=False)}, budget=1)
    assert choice.models == ("b",) and choice.affinities["one"] > 0.9


def test_the_command(tmp_path):
    for name, one in (("one", ranking(0.9, 0.1, 0.8)), ("two", ranking(0.1, 0.9, 0.8))):
        one.save(tmp_path / name)
    words = ["choose", str(tmp_path / "one"), str(tmp_path / "two"), "--budget", "40", "--cost", "parameters"]
    done = CliRunner().invoke(app, words)
    assert done.exit_code == 0, done.output
    assert "Keep a, b: 40 parameters of 40." in done.output
    assert "hf-transfer adapt --model a --dataset LABELLED_ROWS" in done.output


def test_bad_input_raises():
    one = ranking(0.1, 0.2, 0.3)
    with pytest.raises(ValueError, match="`cost` should be one of"):
        budgeted_choice({"one": one}, 1, cost="seconds")
    with pytest.raises(ValueError, match="at least one saved ranking"):
        budgeted_choice({}, 1)
    with pytest.raises(ValueError, match="No choice of sources within a budget of 5"):
        budgeted_choice({"one": one}, 5, cost="parameters")
    with pytest.raises(ValueError, match="the ranking `one` has no scored model"):
        budgeted_choice({"one": Ranking((RankingRow("failed", reason="x"),))}, 1)
    unknown = Ranking((RankingRow("a", 0.1, layer=1, layers={1: Score(0.1, None)}),))
    with pytest.raises(ValueError, match="how many parameters `a` has"):
        budgeted_choice({"one": unknown}, 1, cost="parameters")
