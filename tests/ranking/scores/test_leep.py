import math

import pytest
import torch
from sklearn.datasets import load_iris

from hf_transfer.ranking import LEEP, TransferabilityScore, leep
from hf_transfer.ranking.scores.leep import log_expected_predictions


def make_data(rows=400, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 6, generator=generator).softmax(1), torch.randint(0, 4, (rows,), generator=generator)


def leep_by_loops(probabilities, labels):
    rows, sources = probabilities.shape
    joint = {}
    for row in range(rows):
        for source in range(sources):
            key = (int(labels[row]), source)
            joint[key] = joint.get(key, 0.0) + float(probabilities[row, source]) / rows
    mass = [sum(value for (_, other), value in joint.items() if other == source) for source in range(sources)]
    total = 0.0
    for row in range(rows):
        total += math.log(
            sum(
                joint.get((int(labels[row]), source), 0.0) / mass[source] * float(probabilities[row, source])
                for source in range(sources)
                if mass[source] > 0
            )
        )
    return total / rows


def test_equals_the_formula():
    probabilities, labels = make_data(80)
    assert leep(probabilities, labels) == pytest.approx(leep_by_loops(probabilities.double(), labels), abs=1e-12)


def test_reference():
    data = load_iris()
    probabilities = torch.tensor(data.data).softmax(1)
    assert leep(probabilities, torch.tensor(data.target)) == pytest.approx(-0.9855696, abs=1e-7)


def test_a_source_class_without_mass_changes_nothing():
    probabilities, labels = make_data()
    wider = torch.cat([probabilities, torch.zeros(400, 2)], dim=1)
    assert leep(wider, labels) == pytest.approx(leep(probabilities, labels), abs=1e-12)


def test_streamed_equals_in_memory():
    probabilities, labels = make_data()
    first, second = LEEP(), LEEP()
    first.update(probabilities[:150], labels[:150])
    for batch in torch.arange(150, 400).split(13):
        second.update(probabilities[batch], labels[batch], batch)
    first.merge(second)
    assert first.compute().value == pytest.approx(leep(probabilities, labels), abs=1e-6)


def test_subtracted_joint_equals_the_plain_jackknife():
    probabilities, labels = make_data()
    score = LEEP()
    score.update(probabilities, labels)
    plain = TransferabilityScore.leave_one_out(score, score.shards, score.total())
    assert score.compute().replicates == pytest.approx(plain, abs=1e-9)


def test_a_shard_may_hold_all_rows_of_a_class():
    probabilities, _ = make_data(30)
    labels = torch.zeros(30, dtype=torch.long)
    labels[10:20], labels[29] = 1, 3
    score = LEEP(shards=5)
    score.update(probabilities, labels)
    plain = TransferabilityScore.leave_one_out(score, score.shards, score.total())
    assert score.compute().replicates == pytest.approx(plain, abs=1e-9)


def test_what_has_no_mass_predicts_nothing_and_stays_finite():
    joint = torch.tensor([[2.0, 0.0], [0.0, 0.0], [1.0, 3.0]]).double()
    probabilities = torch.tensor([[0.5, 0.3, 0.2], [1.0, 0.0, 0.0]]).double()
    logs = log_expected_predictions(probabilities, torch.tensor([0, 1]), joint)
    assert logs.tolist() == pytest.approx([math.log(0.5 * 1 + 0.2 / 4), math.log(torch.finfo(torch.float64).tiny)])


def test_a_sample_of_rows_estimates_the_same():
    probabilities, labels = make_data(20_000)
    score = LEEP(max_rows=2000)
    score.update(probabilities, labels)
    result = score.compute()
    assert result.diagnostics == {"rows": 20_000, "rows_kept": 2000}
    assert result.value == pytest.approx(leep(probabilities, labels), abs=3e-3)


def test_values_are_refused():
    with pytest.raises(ValueError, match="compares classes"):
        LEEP().update(torch.rand(3, 2), torch.rand(3))
