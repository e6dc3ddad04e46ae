"""The accumulator every score stands on, tested through the simplest score: the mean of the first feature."""

import math

import pytest
import torch
from scipy.stats import t as student_t

from hf_transfer.ranking import Score, TransferabilityScore, probability_of_beating
from hf_transfer.ranking.score import jackknife_standard_error, target_columns


class MeanScore(TransferabilityScore):
    paper = "none"

    def statistics(self, features, labels, rows):
        return {"sum": features[:, 0].sum()[None], "rows": features.new_tensor([len(features)])}

    def value(self, statistics):
        return (statistics["sum"] / statistics["rows"]).item(), {}


def make_data(rows=1000, size=3, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, size, generator=generator), torch.randint(0, 4, (rows,), generator=generator)


def test_standard_error_of_a_mean_is_the_textbook_one():
    features, labels = make_data(rows=20_000)
    score = MeanScore(shards=50)
    score.update(features, labels)
    result = score.compute()
    textbook = features[:, 0].double().std().item() / math.sqrt(len(features))
    assert result.value == pytest.approx(features[:, 0].double().mean().item(), abs=1e-12)
    assert result.standard_error == pytest.approx(textbook, rel=0.25)


def test_batches_of_any_size_give_the_same_score_and_error():
    features, labels = make_data(rows=5000)
    whole, parts = MeanScore(), MeanScore()
    whole.update(features, labels)
    for batch in torch.arange(5000).split(37):
        parts.update(features[batch], labels[batch])
    assert parts.compute().replicates == pytest.approx(whole.compute().replicates, abs=1e-12)


def test_rows_in_any_order_give_the_same_score_and_error():
    features, labels = make_data(rows=900)
    plain, turned = MeanScore(), MeanScore()
    plain.update(features, labels)
    order = torch.randperm(900, generator=torch.Generator().manual_seed(1))
    for places in order.split(70):
        turned.update(features[places], labels[places], places)
    assert turned.compute().replicates == pytest.approx(plain.compute().replicates, abs=1e-12)


def test_merged_processes_give_the_same_score_and_error():
    features, labels = make_data()
    whole, first, second = MeanScore(), MeanScore(), MeanScore()
    whole.update(features, labels)
    first.update(features[:600], labels[:600])
    second.update(features[600:], labels[600:], torch.arange(600, 1000))
    first.merge(second)
    assert first.compute().replicates == pytest.approx(whole.compute().replicates, abs=1e-12)


def test_more_rows_may_follow_a_compute():
    features, labels = make_data()
    score, whole = MeanScore(), MeanScore()
    score.update(features[:500], labels[:500])
    score.compute()
    score.update(features[500:], labels[500:])
    whole.update(features, labels)
    assert score.compute().replicates == pytest.approx(whole.compute().replicates, abs=1e-12)


def test_alternating_labels_are_spread_over_all_shards():
    labels = torch.arange(1000) % 10
    score = MeanScore()
    score.update(labels[:, None].float(), labels)
    assert all(abs(replicate - 4.5) < 0.1 for replicate in score.compute().replicates)


def test_jackknife_is_the_formula():
    values = [1.0, 2.0, 4.0]
    assert jackknife_standard_error(values) == pytest.approx(math.sqrt(2 / 3 * (16 / 9 + 1 / 9 + 25 / 9)))
    assert jackknife_standard_error([1.0]) is None


def test_probability_uses_the_paired_difference():
    first = Score(1.0, 5.0, (0.9, 1.0, 5.1))
    second = Score(0.5, 5.0, (0.5, 0.4, 4.7))
    differences = [a - b for a, b in zip(first.replicates, second.replicates)]
    expected = student_t.cdf(0.5 / jackknife_standard_error(differences), df=2)
    assert probability_of_beating(first, second) == pytest.approx(expected)
    assert probability_of_beating(second, first) == pytest.approx(1 - expected)
    assert probability_of_beating(first, Score(0.0, None)) is None


def test_unpaired_scores_count_as_independent():
    first, second = Score(1.0, 3.0, (1.0, 2.0, 3.0)), Score(0.0, 4.0, (1.0, 2.0))
    assert probability_of_beating(first, second) == pytest.approx(student_t.cdf(1 / 5, df=1))


def test_equal_scores_beat_each_other_half_the_time():
    assert probability_of_beating(Score(1.0, 0.1, (1.0, 1.1)), Score(1.0, 0.1, (1.0, 1.1))) == 0.5


def test_target_columns():
    assert torch.equal(target_columns(torch.tensor([0, 2])), torch.tensor([[1, 0, 0], [0, 0, 1]]).double())
    assert torch.equal(target_columns(torch.tensor([0.5, 2.0])), torch.tensor([[0.5], [2.0]]).double())
    assert torch.equal(target_columns(torch.tensor([[1, 0], [1, 1]])), torch.tensor([[1, 0], [1, 1]]).double())


@pytest.mark.parametrize(
    ("features", "labels", "message"),
    [
        (torch.zeros(3), torch.zeros(3), "should be"),
        (torch.zeros(3, 2), torch.zeros(2), "should be"),
        (torch.full((3, 2), torch.nan), torch.zeros(3), "features are not finite"),
        (torch.zeros(3, 2), torch.tensor([0.0, torch.inf, 1.0]), "labels are not finite"),
        (torch.zeros(3, 2), torch.tensor([0, -1, 1]), "0 or more"),
    ],
)
def test_bad_batches_are_refused(features, labels, message):
    with pytest.raises(ValueError, match=message):
        MeanScore().update(features, labels)


def test_changed_forms_and_empty_scores_are_refused():
    score = MeanScore()
    with pytest.raises(ValueError, match="no rows"):
        score.compute()
    score.update(*make_data())
    with pytest.raises(ValueError, match="changed their form"):
        score.update(torch.zeros(2, 7), torch.zeros(2, dtype=torch.long))
    other = MeanScore()
    other.update(torch.zeros(2, 7), torch.zeros(2, dtype=torch.long))
    with pytest.raises(ValueError, match="another form"):
        score.merge(other)
    with pytest.raises(ValueError, match="merges"):
        score.merge(MeanScore(shards=3))
    with pytest.raises(ValueError, match="shards"):
        MeanScore(shards=0)
