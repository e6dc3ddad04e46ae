import math

import pytest

from hf_transfer.ranking import SCORES
from hf_transfer.ranking.agreement import TITLES, agreement_in_words, agreements, title

MODELS = {
    "a": {"logme": 0.9, "knn": 0.2, "gbc": -3.0},
    "b": {"logme": 0.5, "knn": 0.8, "gbc": -3.0},
    "c": {"logme": 0.4, "knn": 0.6},
    "d": {"logme": 0.1, "knn": 0.1, "gbc": -3.0},
}


def weighted_tau(first, second):
    """Vigna's tau by its definition, without ties: a pair weighs 1/rank of each, the first of the order has rank 1."""
    pairs = [(one, other) for one in range(len(first)) for other in range(len(first)) if one != other]
    found = []
    for order in (first, second):
        rank = {place: 1 + sum(value > order[place] for value in order) for place in range(len(order))}
        weights = [1 / rank[one] + 1 / rank[other] for one, other in pairs]
        signs = [math.copysign(1, (first[one] - first[other]) * (second[one] - second[other])) for one, other in pairs]
        found.append(sum(weight * sign for weight, sign in zip(weights, signs)) / sum(weights))
    return sum(found) / 2


def test_the_weighted_tau_of_a_pair():
    expected = weighted_tau([0.9, 0.5, 0.4, 0.1], [0.2, 0.8, 0.6, 0.1])
    assert agreements(MODELS, ("logme", "knn")) == {("logme", "knn"): pytest.approx(expected)}
    assert -1 < expected < 1


def test_only_models_with_both_scores_count():
    scores = {"a": {"logme": 1.0, "knn": 3.0}, "b": {"logme": 2.0, "knn": 4.0}, "c": {"logme": 9.0}, "d": {"knn": 0.0}}
    assert agreements(scores, ("logme", "knn")) == {("logme", "knn"): pytest.approx(1.0)}
    assert agreements({name: scores[name] for name in "acd"}, ("logme", "knn")) == {}


def test_a_score_that_is_the_same_for_all_says_nothing():
    assert agreements(MODELS, ("logme", "gbc", "knn")).keys() == {("logme", "knn")}
    assert agreement_in_words(MODELS, ("logme", "gbc")) == []


def test_the_words_of_scores_that_disagree():
    numbers, choices = agreement_in_words(MODELS, ("logme", "knn", "gbc"))
    tau = agreements(MODELS, ("logme", "knn"))["logme", "knn"]
    assert numbers == f"Agreement of the orders (weighted Kendall tau, -1 to 1): LogME and kNN accuracy {tau:.2f}."
    # GBC has no best one: the model that stands first is named
    assert choices.startswith("The scores disagree about the first model (LogME and GBC: a; kNN accuracy: b): ")


def test_the_words_of_scores_that_agree():
    models = {"a": {"logme": 0.9, "h_score": 2.0}, "b": {"logme": 0.1, "h_score": 1.0}, "c": {}}
    assert agreement_in_words(models, ("logme", "h_score", "nce")) == [
        "Agreement of the orders (weighted Kendall tau, -1 to 1): LogME and H-score 1.00.",
        "Every score puts a first.",
    ]


def test_every_registered_score_has_a_title():
    assert TITLES.keys() == SCORES.keys()
    plain = {name: "".join(filter(str.isalpha, text)).lower() for name, text in TITLES.items()}
    assert all(plain[name].startswith(name.replace("_", "")) for name in SCORES)
    assert title("knn") == "kNN accuracy" and title("another") == "another"
