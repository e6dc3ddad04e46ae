"""How the rows of a domain adaptation are put together, held out and scored."""

import logging
import math
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from datasets import Dataset, Value
from transformers import TrainerCallback

from hf_transfer.data.checks import column_values
from hf_transfer.training.family_trainers import hold_out_source, join_domains, score, what_is_predicted
from tests import tiny
from tests.training.test_family_trainers import adapt
from tests.training.test_trainer import accuracy

# Rows held out and joined.


@pytest.fixture
def both() -> Dataset:
    return Dataset.from_dict({"row": range(12), "labels": [0, 1] * 6, "domain": [0, 0, 1] * 4})


def test_without_a_share_all_rows_train_and_validate(both):
    assert hold_out_source(both, 0, 3) == (both, both)


def test_a_share_of_the_source_is_held_out_and_the_target_is_on_both_sides(both):
    trained, validated = (set(rows["row"]) for rows in hold_out_source(both, 0.25, 3))
    target = {2, 5, 8, 11}
    assert trained & validated == target and trained | validated == set(range(12))
    assert len(validated - target) == 2
    assert len(set(hold_out_source(both, 0.3, 3)[1]["row"]) - target) == 2, "rounded"


@pytest.mark.parametrize("share, count", [(0.05, 0), (0.95, 8)])
def test_a_share_that_leaves_a_side_without_source_rows(both, share, count):
    with pytest.raises(ValueError, match=rf"`source_holdout={share}` holds {count} of the 8 source rows out"):
        hold_out_source(both, share, 3)


@pytest.mark.parametrize("kind", ["uint8", "bool", "int32"])
def test_small_integers_can_hold_that_a_label_is_unknown(kind):
    rows = Dataset.from_dict({"input_ids": [[1], [2]], "labels": [0, 1]}).cast_column("labels", Value(kind))
    for joined in (join_domains(rows, rows), join_domains(rows.add_column("domain", [0, 1]), None)):
        labels = list(joined["labels"])
        assert (labels[0], labels[-1]) == (0, -100)


def test_a_domain_column_in_front_keeps_the_order_of_the_rows(both):
    joined = join_domains(both, None)
    assert list(joined["row"]) == list(range(12))
    assert list(joined["labels"]) == [0, 1, -100, 1, 0, -100, 0, 1, -100, 1, 0, -100]


def test_no_label_of_the_target_is_spoken_of_where_all_are_unknown(both, caplog):
    hidden = tiny.with_column(both, "labels", [0, 1, -100] * 4)
    with caplog.at_level(logging.WARNING):
        join_domains(hidden, None)
    assert "not read" not in caplog.text


# Scores.


@pytest.mark.parametrize("place, value", [(0, math.nan), (0, math.inf), (0, -math.inf), (1, math.nan), (1, math.inf)])
def test_outputs_that_are_no_numbers_score_worst(place, value):
    outputs = [torch.zeros(2, 3), torch.zeros(2, 2), torch.zeros(2), torch.full((2,), math.nan)]
    asked = []
    assert score(lambda *given: asked.append(given) or 3, outputs) == 3.0 and len(asked[0]) == 4
    outputs[place][1, 1] = value
    assert score(lambda *given: 3, outputs) == -math.inf


def test_classes_that_are_ruled_out_are_no_divergence():
    outputs = [torch.zeros(2, 3), torch.tensor([[0.0, -math.inf], [1.0, 2.0]]), torch.zeros(2), torch.zeros(2)]
    assert score(lambda *given: 3, outputs) == 3
    assert score(lambda *given: math.nan, outputs) == -math.inf, "nothing is greater than what is no number"
    assert score(lambda *given, problem_type: {"regression": 4}[problem_type], outputs, "regression") == 4
    outputs[1][0] = -math.inf
    assert score(lambda *given: 3, outputs) == -math.inf, "a row without any class"


def test_the_score_is_only_part_of_the_usual_evaluation(tmp_path, digits):
    source, target = digits.select(range(32)), digits.select(range(32, 64))
    trainer = adapt(tmp_path, source, target, eval_dataset=target, compute_metrics=accuracy)
    trainer.validator = lambda features, logits, domain, labels: 0.25
    told = []

    class Listens(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            told.append(dict(metrics))

    trainer.add_callback(Listens())
    name = "eval_information_maximization"
    assert trainer.evaluate()[name] == 0.25 and [one.get(name) for one in told] == [0.25]
    other = trainer.evaluate(metric_key_prefix="test")
    assert "test_accuracy" in other and not [key for key in other if "information" in key]
    assert not [key for key in trainer.predict(target).metrics if "information" in key]
    assert trainer.transfer_model.returns_features is False


def test_a_validator_without_an_evaluation_set_is_logged_and_heard(tmp_path, digits):
    trainer = adapt(tmp_path, digits.select(range(32)), digits.select(range(32, 64)))
    trainer.validator = lambda features, logits, domain, labels: 0.25
    told = []

    class Listens(TrainerCallback):
        def on_evaluate(self, args, state, control, metrics=None, **kwargs):
            told.append(dict(metrics))

    trainer.add_callback(Listens())
    assert trainer.evaluate() == {"eval_information_maximization": 0.25} == told[-1]
    assert trainer.state.log_history[-1]["eval_information_maximization"] == 0.25


def test_what_validators_read_is_in_the_order_of_the_rows(tmp_path, digits):
    source, target = digits.select(range(32)), digits.select(range(32, 64))
    trainer = adapt(tmp_path, source, target, args={"per_device_eval_batch_size": 7})
    rows = trainer.validation_dataset.select([3, 40, 1])
    features, logits, domain, labels = trainer.validation_outputs(rows)
    assert features.shape == (3, 16) and logits.shape == (3, 10)
    assert domain.tolist() == [0, 1, 0] and labels.tolist() == [source[3]["labels"], -100, source[1]["labels"]]
    pixels = torch.stack([source[3]["pixel_values"], target[8]["pixel_values"], source[1]["pixel_values"]])
    with torch.no_grad():
        expected = trainer.adapted_model.eval()(pixels).logits
        head = trainer.adapted_model.classifier(features)
    torch.testing.assert_close(logits, expected)
    torch.testing.assert_close(head, expected)
    assert np.array_equal(column_values(rows, "domain"), domain.numpy())


@pytest.mark.parametrize(
    "problem_type, num_labels, labels, predicts",
    [
        (None, 3, np.array([0, 1]), "single_label_classification"),
        ("single_label_classification", 3, np.array([0, 2]), "single_label_classification"),
        (None, 3, np.array([[0.5, 1.5, 2.0]]), "regression"),
        (None, 3, np.array([[1.0, 0.0, 1.0], [-100.0] * 3]), "multi_label_classification"),
        ("regression", 1, np.array([0.5, 1.0]), "regression"),
        (None, 1, np.array([0.5, 2.0]), "regression"),
        ("multi_label_classification", 3, np.array([[1.0, 0.0, 1.0]]), "multi_label_classification"),
    ],
)
def test_what_is_predicted(problem_type, num_labels, labels, predicts):
    model = SimpleNamespace(config=SimpleNamespace(problem_type=problem_type, num_labels=num_labels))
    assert what_is_predicted(model, labels) == predicts
