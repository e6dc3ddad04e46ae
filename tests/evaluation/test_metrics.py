import evaluate
import pytest
import torch

from hf_transfer.evaluation.metrics import FOLDER, load_metric, metric_names
from hf_transfer.ranking import SCORES, logme
from hf_transfer.ranking.registry import score_class


def make_data(rows=200, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, 5, generator=generator).softmax(1), torch.randint(0, 3, (rows,), generator=generator)


def test_accuracy():
    metric = load_metric("accuracy")
    assert metric.compute(predictions=[0, 1, 1, 2], references=[0, 1, 0, 2]) == {"accuracy": 0.75}
    weighted = metric.compute(predictions=[0, 1], references=[0, 0], sample_weight=[3.0, 1.0])
    assert weighted == {"accuracy": 0.75}
    assert metric.compute(predictions=[0, 1], references=[0, 1], normalize=False) == {"accuracy": 2.0}


def test_accuracy_over_batches_and_in_combination():
    metric = load_metric("accuracy")
    metric.add_batch(predictions=[0, 1], references=[0, 0])
    metric.add_batch(predictions=[2, 2], references=[2, 2])
    assert metric.compute() == {"accuracy": 0.75}
    both = evaluate.combine([load_metric("accuracy"), load_metric("accuracy")])
    assert set(both.compute(predictions=[0], references=[0]).values()) == {1.0}


@pytest.mark.parametrize("name", sorted(SCORES))
def test_every_score_is_a_module(name):
    features, labels = make_data()
    metric = evaluate.load(str(FOLDER / name))
    for batch in torch.arange(200).split(64):
        metric.add_batch(predictions=features[batch].tolist(), references=labels[batch].tolist())
    score = score_class(name)()
    score.update(features, labels)
    assert metric.compute()[name] == pytest.approx(score.compute().value, rel=1e-6)


def test_values_and_several_labels():
    features, labels = make_data()
    values = labels + 0.5
    result = load_metric("logme", config_name="regression").compute(
        predictions=features.tolist(), references=values.tolist(), shards=1
    )
    assert result["logme"] == pytest.approx(logme(features, values), rel=1e-6)
    assert result["standard_error"] is None
    several = torch.stack([labels == 0, labels == 1], dim=1).double()
    result = load_metric("logme", config_name="multilabel").compute(
        predictions=features.tolist(), references=several.tolist()
    )
    assert result["logme"] == pytest.approx(logme(features, several), rel=1e-6)


def test_unknown_names_are_refused():
    assert set(SCORES) | {"accuracy"} <= set(metric_names())
    with pytest.raises(ValueError, match="`name` should be one of"):
        load_metric("acuracy")
    with pytest.raises(ValueError, match="configuration"):
        load_metric("logme", config_name="ranking")
