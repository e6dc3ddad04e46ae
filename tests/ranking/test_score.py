"""The accumulator every score stands on, tested through the simplest score: the mean of the first feature."""

import math

import pytest
import torch
from scipy.stats import t as student_t

from hf_transfer.ranking import Score, TransferabilityScore, probability_of_beating
from hf_transfer.ranking.score import check_classes, jackknife_standard_error, sum_with_padding, target_columns


class MeanScore(TransferabilityScore):
    """`batches` are the rows of each call of `statistics`."""

    paper = "none"

    def __init__(self, **options):
        super().__init__(**options)
        self.batches = []

    def statistics(self, features, labels, rows):
        self.batches.append(rows.tolist())
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


def scored(features, labels, rows=None, **options):
    score = MeanScore(**options)
    score.update(features, labels, rows)
    return score


def test_rows_wait_until_there_are_8192_and_are_summed_1024_at_a_time():
    features, labels = make_data(rows=8193)
    score = scored(features[:8191], labels[:8191], shards=1)
    assert score.batches == []
    score.update(features[8191:8192], labels[8191:8192])
    assert [len(batch) for batch in score.batches] == [1024] * 8
    assert [row for batch in score.batches for row in batch] == list(range(8192))
    score.update(features[8192:], labels[8192:])
    assert len(score.batches) == 8 and score.total()["rows"].item() == 8193


@pytest.mark.parametrize("start", [0, 10**9])
@pytest.mark.parametrize("stride", [1, 2, 10])
def test_rows_of_any_place_are_spread_over_all_shards(start, stride):
    features, labels = make_data(rows=1000)
    score = scored(features, labels, start + stride * torch.arange(1000))
    score.total()
    rows = [shard["rows"].item() for shard in score.shards]
    assert sum(rows) == 1000 and min(rows) >= 90 and max(rows) <= 110


def test_few_rows_leave_shards_empty():
    features, labels = make_data(rows=3)
    one, two = scored(features[:1], labels[:1]).compute(), scored(features[:2], labels[:2]).compute()
    assert (one.value, one.standard_error, one.replicates) == (pytest.approx(features[0, 0].item()), None, ())
    assert sorted(two.replicates) == pytest.approx(sorted(features[:2, 0].tolist()))
    assert two.standard_error == pytest.approx(abs(features[0, 0] - features[1, 0]).item() / 2)
    alone = scored(features, labels, shards=1).compute()
    assert (alone.value, alone.standard_error, alone.replicates) == (
        pytest.approx(features[:, 0].mean().item()),
        None,
        (),
    )


def test_no_gradient_is_kept():
    features, labels = make_data()
    score = scored(features.requires_grad_(), labels.double().requires_grad_())
    assert not any(part.requires_grad for part in score._waiting[0])
    assert not any(value.requires_grad for value in score.total().values())


def test_an_empty_batch_changes_nothing():
    features, labels = make_data(rows=20)
    score = scored(features, labels)
    score.update(features[:0], labels[:0])
    assert score.compute() == scored(features, labels).compute()


def test_rows_follow_those_of_a_merged_process():
    features, labels = make_data(rows=300)
    first, second = (
        scored(features[:100], labels[:100]),
        scored(features[100:200], labels[100:200], torch.arange(100, 200)),
    )
    first.merge(second)
    assert first.next_row == 200
    first.update(features[200:], labels[200:])
    assert first.compute().replicates == pytest.approx(scored(features, labels).compute().replicates, abs=1e-12)
    second.merge(scored(features[:50], labels[:50]))
    assert second.next_row == 200


@pytest.mark.parametrize("empty_is_first", [True, False])
def test_merging_with_a_process_without_rows(empty_is_first):
    features, labels = make_data()
    full, empty = scored(features, labels), MeanScore()
    expected = scored(features, labels).compute()
    first, second = (empty, full) if empty_is_first else (full, empty)
    first.merge(second)
    assert first.compute() == expected and (not empty_is_first or second.compute() == expected)
    with pytest.raises(ValueError, match="changed their form"):
        first.update(torch.zeros(2, 7), torch.zeros(2, dtype=torch.long))
    # nothing is shared: what is added to one in place stays out of the other
    for shard, other in zip(first.shards, second.shards):
        assert shard is None or other is None or shard["sum"].data_ptr() != other["sum"].data_ptr()


def test_another_kind_does_not_merge():
    class Another(MeanScore):
        pass

    with pytest.raises(ValueError, match="Only a MeanScore with 10 shards merges"):
        MeanScore().merge(Another())


def test_to_cpu_sums_what_waits():
    features, labels = make_data(rows=5)
    score = scored(features, labels)
    score.to_cpu()
    assert score._waiting == [] and sum(shard is not None for shard in score.shards) == 5
    assert score.compute() == scored(features, labels).compute()


def test_an_error_that_is_not_known():
    assert jackknife_standard_error([1.0, math.inf, 2.0]) is None
    assert probability_of_beating(Score(1.0, 3.0, (1.0,)), Score(0.0, 4.0, (1.0, 2.0))) is None
    assert probability_of_beating(Score(1.0, None, (1.0, 2.0, 4.0)), Score(0.0, 4.0, (1.0, 2.0))) is None


def test_a_difference_without_noise_is_certain():
    first, second = Score(0.75, 0.5, (0.5, 1.0)), Score(0.5, 0.5, (0.25, 0.75))
    assert (probability_of_beating(first, second), probability_of_beating(second, first)) == (1.0, 0.0)


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int32, torch.int64, torch.bfloat16, torch.float32])
def test_target_columns_are_float64(dtype):
    columns = target_columns(torch.tensor([0, 2], dtype=dtype))
    assert columns.dtype == torch.float64
    assert columns.tolist() == ([[0], [2]] if dtype.is_floating_point else [[1, 0, 0], [0, 0, 1]])


def test_large_values_are_no_infinities():
    """Their sum overflows in half precision, they do not."""
    features = torch.full((10, 2), 60_000.0, dtype=torch.float16)
    assert scored(features, torch.zeros(10)).compute().value == pytest.approx(60_000, rel=1e-3)
    features[3, 1] = math.inf
    with pytest.raises(ValueError, match="features are not finite"):
        scored(features, torch.zeros(10))


@pytest.mark.parametrize(
    ("features", "labels"),
    [
        (torch.zeros(3, 2), torch.zeros(3, 1, 1)),
        (torch.zeros(3, 2, 2), torch.zeros(3)),
        (torch.zeros(3, 2), torch.tensor(1)),
    ],
)
def test_other_shapes_are_refused(features, labels):
    with pytest.raises(ValueError, match="should be"):
        scored(features, labels)


@pytest.mark.parametrize("labels", [torch.tensor([-0.5, 1.0]), torch.tensor([[-1, 0], [1, 2]])])
def test_values_may_be_negative(labels):
    assert scored(torch.ones(2, 2), labels).compute().value == 1.0


@pytest.mark.parametrize("later", [torch.zeros(3), torch.zeros(3, 2), torch.zeros(3, 4).long(), torch.zeros(3).long()])
def test_the_form_of_labels_stays(later):
    score = scored(torch.zeros(3, 2), torch.zeros(3, 4))
    with pytest.raises(ValueError, match="changed their form"):
        score.update(torch.zeros(3, 2), later)


def test_sums_of_different_width():
    short, long = torch.tensor([[1.0], [2.0]]), torch.tensor([[10.0, 20.0, 30.0], [40.0, 50.0, 60.0]])
    for one, other in ((short, long), (long, short)):
        assert sum_with_padding(one, other).tolist() == [[11, 20, 30], [42, 50, 60]]
    assert sum_with_padding(short, short).tolist() == [[2], [4]]
    assert sum_with_padding(short[:, 0], long[0]).tolist() == [11, 22, 30]


def test_what_classes_are():
    check_classes(MeanScore(), torch.tensor([0, 1]))
    for labels in (torch.tensor([0.0, 1.0]), torch.tensor([[0, 1]]), torch.tensor([[0.5]])):
        with pytest.raises(ValueError, match="MeanScore compares classes"):
            check_classes(MeanScore(), labels)
