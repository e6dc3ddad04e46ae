import pytest
import torch

from hf_transfer.ranking import KNN
from hf_transfer.ranking.accumulators import Accumulators, compute_scores
from hf_transfer.ranking.settings import RankSettings

SETTINGS = RankSettings(score=("knn", "h_score", "trans_rate"))


def make_data(rows=60, seed=0):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.arange(rows) % 3
    return {layer: torch.randn(rows, 4, generator=generator) + layer * labels[:, None] for layer in (0, 2)}, labels


def filled(settings, features, labels, rows=None, part=slice(None)):
    accumulators = Accumulators(settings, 60)
    rows = torch.arange(len(labels)) if rows is None else rows
    for layer, vectors in features.items():
        accumulators.update(layer, vectors[part], labels[part], rows[part])
    return accumulators


def alone(settings, name, features, labels):
    score = settings.new_scores()[name]
    score.update(features, labels)
    return score.compute()


def test_every_layer_and_score_is_what_the_score_says_alone():
    features, labels = make_data()
    found, failed = compute_scores([filled(SETTINGS, features, labels)])
    assert failed == {} and list(found) == list(SETTINGS.scores)
    for name, layers in found.items():
        assert layers == {layer: alone(SETTINGS, name, features[layer], labels) for layer in (0, 2)}
    assert len({score.value for layers in found.values() for score in layers.values()}) == 6


def test_processes_are_merged_and_their_statistics_let_go():
    features, labels = make_data()
    parts = [filled(SETTINGS, features, labels, part=part) for part in (slice(0, 25), slice(25, 40), slice(40, 60))]
    found, failed = compute_scores(parts)
    assert failed == {} and all(part.layers == {} for part in parts)
    for name, layers in found.items():
        for layer, score in layers.items():
            expected = alone(SETTINGS, name, features[layer], labels)
            assert score.value == pytest.approx(expected.value, abs=1e-9)
            assert score.standard_error == pytest.approx(expected.standard_error, abs=1e-9)


def test_a_layer_that_one_process_has_not_seen():
    features, labels = make_data()
    first, second = filled(SETTINGS, {0: features[0]}, labels), filled(SETTINGS, {2: features[2]}, labels)
    found, _ = compute_scores([first, second])
    assert found["h_score"] == {layer: alone(SETTINGS, "h_score", features[layer], labels) for layer in (0, 2)}


def test_a_score_that_does_not_order_fails_alone_with_its_reason():
    features, _ = make_data()
    values = features[0][:, 0]
    accumulators = filled(RankSettings(score=("knn", "h_score", "logme")), features, values)
    accumulators.update(2, features[2], values, torch.arange(60, 120))
    found, failed = compute_scores([accumulators])
    assert list(found) == ["knn", "logme"] and list(failed) == ["h_score"]
    assert failed["h_score"].startswith("HScore compares classes") and "\n" not in failed["h_score"]
    assert found["knn"].keys() == found["logme"].keys() == {0, 2}


def test_the_score_that_orders_raises():
    features, labels = make_data()
    with pytest.raises(ValueError, match="HScore compares classes"):
        filled(RankSettings(score=("h_score", "knn")), features, features[0])
    constant = filled(RankSettings(score=("linear_probe", "knn")), {0: torch.ones(60, 4)}, labels)
    with pytest.raises(ValueError, match="features differ"):
        compute_scores([constant])


def test_a_failure_in_the_end_or_in_another_process_counts_for_all():
    features, labels = make_data()
    features[2] = torch.ones(60, 4)
    found, failed = compute_scores([filled(RankSettings(score=("knn", "linear_probe")), features, labels)])
    assert list(found) == ["knn"] and "features differ" in failed["linear_probe"]
    first, second = (filled(SETTINGS, make_data()[0], labels, part=part) for part in (slice(30), slice(30, 60)))
    second.failed["h_score"] = "It had no memory."
    found, failed = compute_scores([first, second])
    assert list(found) == ["knn", "trans_rate"] and failed == {"h_score": "It had no memory."}


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (torch.linalg.LinAlgError("\nIt did not converge.\nTry again."), "It did not converge."),
        (ValueError(), "ValueError"),
    ],
)
@pytest.mark.parametrize("method", ["update", "compute"])
def test_the_first_line_is_the_reason(error, reason, method, monkeypatch):
    def fail(*args):
        raise error

    features, labels = make_data()
    monkeypatch.setattr(KNN, method, fail)
    found, failed = compute_scores([filled(RankSettings(score=("h_score", "knn")), features, labels)])
    assert list(found) == ["h_score"] and failed == {"knn": reason}


def layers_of(sizes):
    return {layer: torch.zeros(2, size) for layer, size in enumerate(sizes)}


@pytest.mark.parametrize(
    ("rows", "shards", "each"),
    [
        # float32 rows that wait: 4 bytes, 8 columns, 100 rows
        (100, 10, 3_200),
        # float64 matrices of 8 x 8 of each shard, and the 8192 rows of 8 columns that wait
        (10**9, 10, 10 * 512 + 262_144),
        (10**9, 3, 3 * 512 + 262_144),
    ],
)
def test_as_many_layers_as_fit_into_memory(rows, shards, each, monkeypatch):
    settings = RankSettings(score=("knn", "logme"), score_options={"logme": {"shards": shards}, "knn": {"shards": 2}})
    # the widest layer counts
    features = layers_of([4, 8, 8, 8, 8, 8, 2])

    def kept(memory):
        monkeypatch.setattr("hf_transfer.ranking.accumulators.MOST_BYTES", memory)
        return list(Accumulators(settings, rows).choose(features))

    assert kept(7 * each) == [0, 1, 2, 3, 4, 5, 6]
    assert kept(7 * each - 1) == [0, 2, 4, 6]
    assert kept(3 * each) == [0, 3, 6]
    assert kept(1) == [6]


def test_four_gib_are_the_most():
    settings = RankSettings(score="logme")
    wide = {layer: torch.zeros(1, 1).expand(1, 2**13) for layer in range(5)}
    # 10 matrices of 512 MiB, and rows of 256 MiB that wait
    assert list(Accumulators(settings, 10**9).choose(wide)) == [4]
    # 4 bytes, 8192 columns, 2**15 rows: 1 GiB each
    assert list(Accumulators(settings, 2**15).choose(wide)) == [0, 2, 4]
    assert list(Accumulators(settings, 2**15).choose({layer: wide[layer] for layer in range(4)})) == [0, 1, 2, 3]


def test_layers_that_were_chosen_stay():
    features, labels = make_data()
    accumulators = Accumulators(SETTINGS, 60)
    assert accumulators.choose(features).keys() == {0, 2} and accumulators.layers_seen == 2
    accumulators.update(2, features[2], labels, torch.arange(60))
    assert accumulators.choose(features).keys() == {2}
    accumulators.choose({2: features[2]})
    assert accumulators.layers_seen == 2


def test_layers_that_are_named_are_all_taken(monkeypatch):
    monkeypatch.setattr("hf_transfer.ranking.accumulators.MOST_BYTES", 1)
    features, labels = make_data()
    accumulators = Accumulators(RankSettings(layers=(0, 2)), 60)
    assert accumulators.choose(features).keys() == {0, 2}
    accumulators.update(0, features[0], labels, torch.arange(60))
    assert accumulators.choose(features).keys() == {0}


def test_what_waits_is_summed_before_it_is_sent():
    features, labels = make_data()
    accumulators, other = filled(SETTINGS, features, labels), filled(SETTINGS, features, labels)
    accumulators.to_cpu()
    for scores in accumulators.layers.values():
        assert all(shard is not None for score in scores.values() for shard in score.shards)
    assert compute_scores([accumulators]) == compute_scores([other])
