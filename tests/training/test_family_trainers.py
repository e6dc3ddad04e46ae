import logging

import numpy as np
import pytest
import torch
from datasets import ClassLabel, Dataset
from transformers import (
    DataCollatorWithPadding,
    EarlyStoppingCallback,
)

from hf_transfer.core.objective import IGNORED_LABEL, Objective
from hf_transfer.data.checks import column_values
from hf_transfer.training.converters import convert_model
from hf_transfer.training.family_trainers import (
    DomainAdaptationTrainer,
    TaskAdaptationTrainer,
    hold_out_source,
    join_domains,
    score,
)
from hf_transfer.training.transfer_model import TransferModel
from hf_transfer.validators import WORKING, find_validator
from hf_transfer.validators.information_maximization import information_maximization
from tests import tiny
from tests.training.test_trainer import accuracy, assert_same, config, state_of

ADVERSARIAL = {"cdan": {"hidden_size": 8}, "mcc": {}, "dann": {"hidden_size": 8}}


@pytest.fixture(scope="module")
def source(digits):
    return digits.select(range(32))


@pytest.fixture(scope="module")
def target(digits):
    return digits.select(range(32, 64))


def adapt(folder, source, target, *, args=None, seed=0, **changes) -> DomainAdaptationTrainer:
    torch.manual_seed(seed)
    changes = {"objectives": ADVERSARIAL, **changes}
    args = config(folder, **(args or {}))
    return DomainAdaptationTrainer(tiny.vit(), args, train_dataset=source, target_dataset=target, **changes)


# Domain adaptation.


def test_target_labels_never_reach_the_model(tmp_path, source, target):
    """Poisoned target labels, absent ones and true ones give the same weights to the bit."""
    poisoned = tiny.with_column(target, "labels", [7] * 32)
    absent = target.remove_columns("labels")
    ends = []
    for labelled in (target, poisoned, absent):
        args = {"eval_strategy": "steps", "eval_steps": 2}
        trainer = adapt(tmp_path, source, labelled, args=args)
        trainer.train()
        ends.append((state_of(trainer), trainer.evaluate()["eval_information_maximization"]))
    assert_same(ends[0][0], ends[1][0])
    assert_same(ends[0][0], ends[2][0])
    assert ends[0][1] == ends[1][1] == ends[2][1]


def test_target_labels_under_a_second_name_are_removed_too():
    """`DataCollatorWithPadding` prefers `label` to `labels`, and would have put the true ones back."""
    reader = tiny.tokenizer()
    books = [book for _, book in tiny.SENTENCES]
    columns = {**reader([text for text, _ in tiny.SENTENCES]), "labels": books, "label": books}
    rows = Dataset.from_dict({**columns, "domain": [0] * 12 + [1] * 12})
    joined = join_domains(rows, None)
    assert "label" not in joined.column_names
    batch = DataCollatorWithPadding(reader)([joined[place] for place in range(12, 24)])
    assert set(batch["labels"].tolist()) == {IGNORED_LABEL}
    pair = join_domains(rows.remove_columns("domain"), rows.remove_columns(["domain", "labels"]))
    assert "label" not in pair.column_names


def test_joining_keeps_the_rows_and_the_format(source, target):
    joined = join_domains(source, target)
    assert joined["domain"][:].tolist() == [0] * 32 + [1] * 32
    assert joined["labels"][:].tolist() == source["labels"][:].tolist() + [IGNORED_LABEL] * 32
    assert torch.equal(joined[40]["pixel_values"], target[8]["pixel_values"])
    assert torch.equal(joined[3]["pixel_values"], source[3]["pixel_values"])


def test_one_dataset_with_a_domain_column_is_the_same_as_two(source, target, digits):
    both = tiny.with_column(digits, "domain", [0] * 32 + [1] * 32)
    first, second = join_domains(both, None), join_domains(source, target)
    for column in ("labels", "domain"):
        assert column_values(first, column).tolist() == column_values(second, column).tolist()


def test_class_names_become_numbers(source, target):
    plain = Dataset.from_dict({"input_ids": [[1], [2]], "label": [0, 1]}).cast_column("label", ClassLabel(names="ab"))
    joined = join_domains(plain, plain.remove_columns("label"))
    assert joined["label"][:] == [0, 1, IGNORED_LABEL, IGNORED_LABEL]


@pytest.mark.parametrize(
    "labels, unknown", [([0.5, 2.0], IGNORED_LABEL), ([[1.0, 0.0], [0.0, 1.0]], [IGNORED_LABEL] * 2)]
)
def test_regression_and_multi_label_targets_are_hidden(labels, unknown):
    rows = Dataset.from_dict({"input_ids": [[1], [2]], "labels": labels})
    assert join_domains(rows, rows)["labels"][:] == [*labels, unknown, unknown]
    both = Dataset.from_dict({"input_ids": [[1], [2]], "labels": labels, "domain": [1, 0]})
    assert join_domains(both, None)["labels"][:] == [unknown, labels[1]]


def test_every_batch_is_half_source_half_target(tmp_path, source, target):
    class Counts(Objective):
        seen = []

        def forward(self, view):
            Counts.seen.append((len(view.source.logits), len(view.target.logits)))
            return view.features.mean()

    adapt(tmp_path, source, target.select(range(5)), objectives={"counts": Counts()}).train()
    assert Counts.seen == [(4, 4)] * 4


@pytest.mark.parametrize("objectives", [{}, {"l2_sp": {}}])
def test_source_only_knows_nothing_of_the_target(tmp_path, source, target, objectives, caplog):
    """The statistics of batch norms are of the source, and no step is spent on rows that nothing reads."""
    ends = []
    for rows in (target, source):
        torch.manual_seed(0)
        trainer = DomainAdaptationTrainer(
            tiny.resnet(), config(tmp_path), train_dataset=source, target_dataset=rows, objectives=objectives
        )
        assert [len(batch["labels"]) for batch in trainer.get_train_dataloader()] == [4] * 8
        trainer.train()
        ends.append(state_of(trainer))
    assert any("running_var" in name for name in ends[0])
    assert_same(*ends)
    assert "8 rows is 4 of the source and 4 of the target, which is left out" in caplog.text


def test_a_converter_may_read_the_target(tmp_path, source, target):
    model = convert_model(tiny.resnet(), {"dsbn": {}})
    trainer = DomainAdaptationTrainer(model, config(tmp_path), train_dataset=source, target_dataset=target)
    assert all(batch["domain"].tolist() == [0] * 4 + [1] * 4 for batch in trainer.get_train_dataloader())


def test_an_odd_batch_is_refused(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target, args={"per_device_train_batch_size": 7})
    with pytest.raises(ValueError, match="`batch_size` should be a multiple of the number of domains"):
        trainer.train()


def test_the_validator_reads_the_unlabelled_rows(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target, args={"per_device_eval_batch_size": 5})
    batch = tiny.batch_of(target, 32)
    with torch.no_grad():
        logits = trainer.adapted_model.eval()(batch["pixel_values"]).logits
    expected = information_maximization(None, logits, None)
    assert trainer.validate() == pytest.approx(expected, abs=1e-6)
    assert trainer.evaluate() == {"eval_information_maximization": pytest.approx(expected, abs=1e-6)}


def test_the_validator_reads_at_most_so_many_rows_of_each_domain(tmp_path, source, target):
    rows = adapt(tmp_path, source, target, validation_rows=5).validation_dataset
    assert column_values(rows, "domain").tolist() == [0] * 5 + [1] * 5
    assert torch.equal(rows[5]["pixel_values"], target[0]["pixel_values"])
    assert torch.equal(rows[9]["pixel_values"], target[31]["pixel_values"])
    with pytest.raises(ValueError, match="`validation_rows` should be at least 1, got 0"):
        adapt(tmp_path, source, target, validation_rows=0)


def test_validators_read_source_rows_that_were_not_trained_on(tmp_path, source, target):
    source = tiny.with_column(source, "writer", list(range(32)))
    target = tiny.with_column(target, "writer", list(range(100, 132)))
    trainer = adapt(tmp_path, source, target, args={"source_holdout": 0.25, "seed": 3})
    trained, validated = (
        set(column_values(rows, "writer").tolist()) for rows in (trainer.train_dataset, trainer.validation_dataset)
    )
    assert len({row for row in validated if row < 100}) == 8
    assert trained & validated == set(range(100, 132)), "the domains share the target rows alone"
    assert trained | validated == {*range(32), *range(100, 132)}
    with pytest.raises(ValueError, match="holds 0 of the 32 source rows out"):
        adapt(tmp_path, source, target, args={"source_holdout": 0.01})
    with pytest.raises(ValueError, match=r"`source_holdout` should be in \[0, 1\), got 1.0"):
        adapt(tmp_path, source, target, args={"source_holdout": 1.0})


def test_the_seed_says_which_source_rows_are_held_out():
    rows = Dataset.from_dict({"row": range(40), "domain": [0, 1] * 20})
    held, again, other = ([part["row"][:] for part in hold_out_source(rows, 0.25, seed)] for seed in (3, 3, 4))
    assert held == again
    assert held[1] != other[1], "another seed holds other rows out"
    source = [row for row in held[1] if row % 2 == 0]
    assert len(source) == 5 and source != list(range(0, 10, 2)), "not simply the first ones"
    assert held[0] == [row for row in range(40) if row not in source], "in the order of the dataset"


def test_the_validator_sees_all_rows_whatever_the_arguments_of_the_evaluation(tmp_path, source, target):
    plain = adapt(tmp_path, source, target).validate()

    def batched(prediction, compute_result):
        return {"rows": len(prediction.label_ids)}

    args = {"dataloader_drop_last": True, "per_device_eval_batch_size": 24, "batch_eval_metrics": True}
    args |= {"eval_do_concat_batches": False}
    other = adapt(
        tmp_path,
        source,
        target,
        args=args,
        eval_dataset=target,
        compute_metrics=batched,
        preprocess_logits_for_metrics=lambda logits, labels: logits.softmax(dim=-1),
    )
    assert other.evaluate()["eval_information_maximization"] == pytest.approx(plain, abs=1e-6)
    assert other.args.dataloader_drop_last is True
    assert other.preprocess_logits_for_metrics is not None


def watched(trainer: DomainAdaptationTrainer, scores: list[float]) -> None:
    """The validator gives these scores in turn."""
    remaining = iter(scores)
    trainer.validator = lambda features, logits, domain, labels: next(remaining)


def test_the_checkpoint_is_chosen_by_the_validator_and_the_log_says_so(tmp_path, source, target, caplog):
    """The target's labels would have chosen otherwise: the scores are given, and no accuracy is asked."""
    args = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
    }
    trainer = adapt(tmp_path, source, target, args=args, eval_dataset=target, compute_metrics=accuracy)
    watched(trainer, [0.1, 0.4, 0.2, 0.3])
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-2")
    assert trainer.state.best_metric == 0.4
    assert "checkpoint-2 was chosen by `eval_information_maximization` = 0.4000, without target labels." in caplog.text
    chosen = TransferModel(tiny.vit(), trainer.transfer_model.objectives)
    chosen.load_weights(tmp_path / "checkpoint-2")
    assert_same(state_of(trainer), {name: value.clone() for name, value in chosen.state_dict().items()})
    logged = [log for log in trainer.state.log_history if "eval_accuracy" in log]
    assert [log["eval_information_maximization"] for log in logged] == [0.1, 0.4, 0.2, 0.3]


def test_another_metric_chooses_where_it_is_named(tmp_path, source, target):
    args = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "metric_for_best_model": "accuracy",
    }
    trainer = adapt(tmp_path, source, target, args=args, eval_dataset=target, compute_metrics=accuracy)
    watched(trainer, [0.9, 0.1])
    trainer.train()
    accuracies = [log["eval_accuracy"] for log in trainer.state.log_history if "eval_accuracy" in log]
    assert trainer.state.best_metric == max(accuracies)


@pytest.mark.parametrize("labelled", [True, False])
def test_training_stops_early_by_the_validator(tmp_path, source, target, labelled):
    """Also without an evaluation set: the validator needs none."""
    args = {
        "eval_strategy": "steps",
        "eval_steps": 1,
        "save_strategy": "steps",
        "save_steps": 1,
        "load_best_model_at_end": True,
        "max_steps": 6,
    }
    patience = EarlyStoppingCallback(early_stopping_patience=2)
    evaluation = {"eval_dataset": target} if labelled else {}
    trainer = adapt(tmp_path, source, target, args=args, callbacks=[patience], **evaluation)
    watched(trainer, [0.5, 0.4, 0.3, 0.9, 0.9, 0.9])
    trainer.train()
    assert trainer.state.global_step == 3
    assert trainer.state.best_model_checkpoint.endswith("checkpoint-1")


def test_several_evaluation_sets_and_one_validation(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target, eval_dataset={"early": target.select(range(9)), "late": source})
    watched(trainer, [0.25])
    metrics = trainer.evaluate()
    assert metrics["eval_information_maximization"] == 0.25
    assert {"eval_early_loss", "eval_late_loss"} <= metrics.keys()


def test_a_missing_domain(tmp_path, source, target):
    with pytest.raises(ValueError, match="one domain is missing: pass `target_dataset`"):
        adapt(tmp_path, source, None)
    with pytest.raises(ValueError, match=r"both 0 \(source\) and 1 \(target\), got only \[0\]"):
        adapt(tmp_path, tiny.with_column(source, "domain", [0] * 32), None)
    with pytest.raises(ValueError, match="the target dataset is empty"):
        adapt(tmp_path, source, target.select([]))
    with pytest.raises(ValueError, match="the source dataset has no label column"):
        adapt(tmp_path, source.remove_columns("labels"), target)


def test_a_domain_smaller_than_half_a_batch(tmp_path, source, target):
    with pytest.raises(ValueError, match="the target has 3 rows and each batch takes 4 of it"):
        adapt(tmp_path, source, target.select(range(3)))


def test_target_labels_given_by_mistake_are_told_of(tmp_path, source, target, caplog):
    with caplog.at_level(logging.WARNING):
        join_domains(source, target.remove_columns("labels"))
    assert "not read" not in caplog.text
    with caplog.at_level(logging.WARNING):
        join_domains(source, target)
    assert "the target has labels (column `labels`); they are not read." in caplog.text
    caplog.clear()
    both = Dataset.from_dict({"input_ids": [[1], [2]], "labels": [1, 0], "domain": [0, 1]})
    with caplog.at_level(logging.WARNING):
        join_domains(both, None)
    assert "they are not read" in caplog.text


def test_other_classes_in_the_target(tmp_path, source, target):
    def named(rows, names):
        return rows.with_format(None).cast_column("labels", ClassLabel(names=list(names)))

    source, target = (rows.with_format(None) for rows in (source, target))
    source = named(source, "0123456789")
    target = named(tiny.with_column(target, "labels", [0] * 32), "012")
    with pytest.raises(ValueError, match="partial domain adaptation: use pada or iwan"):
        adapt(tmp_path, source, target)
    adapt(tmp_path, source, target, objectives={"pada": {"hidden_size": 8}})


def test_a_domain_that_is_neither_source_nor_target(tmp_path, source):
    rows = tiny.with_column(source, "domain", [0] * 15 + [1] * 15 + [2] * 2)
    with pytest.raises(ValueError, match=r"both 0 \(source\) and 1 \(target\), got only \[0, 1, 2\]"):
        adapt(tmp_path, rows, None)


def test_every_validator_of_one_pass(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target, objectives={})
    scores = trainer.validate_by_all()
    assert scores.keys() == set(WORKING["single_label_classification"])
    for name in ("entropy", "information_maximization", "source_accuracy"):
        trainer.validator = find_validator(name)
        assert scores[name] == pytest.approx(trainer.validate(), abs=1e-6)


def test_a_validator_that_the_data_do_not_allow_is_left_out(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target, objectives={}, validation_rows=1)
    assert "snd" not in trainer.validate_by_all() and "entropy" in trainer.validate_by_all()


def test_different_columns(tmp_path, source, target):
    with pytest.raises(ValueError, match=r"these are in one only: \['writer'\]"):
        adapt(tmp_path, tiny.with_column(source, "writer", [1] * 32), target)


def test_an_unknown_validator(tmp_path, source, target):
    with pytest.raises(ValueError, match=r"unknown validator `accuracy`, accepted: \[.*'entropy'"):
        adapt(tmp_path, source, target, args={"validator": "accuracy"})


def test_a_resumed_adaptation_equals_a_straight_one(tmp_path, source, target):
    args = {
        "eval_strategy": "steps",
        "eval_steps": 2,
        "save_strategy": "steps",
        "save_steps": 2,
        "load_best_model_at_end": True,
        "max_steps": 6,
    }
    straight = adapt(tmp_path, source, target, args=args)
    straight.train()
    (tmp_path / "checkpoint-6" / "trainer_state.json").unlink()
    resumed = adapt(tmp_path, source, target, args=args, seed=9)
    resumed.train(resume_from_checkpoint=True)
    assert_same(state_of(straight), state_of(resumed))
    assert resumed.state.best_model_checkpoint == straight.state.best_model_checkpoint


# Task adaptation and pre-training.


def test_task_adaptation_learns_real_digits(tmp_path, digits):
    torch.manual_seed(0)
    args = config(tmp_path, max_steps=40)
    trainer = TaskAdaptationTrainer(
        tiny.resnet(),
        args,
        train_dataset=digits,
        eval_dataset=digits,
        objectives={"l2_sp": {"alpha": 0.01}},
        compute_metrics=accuracy,
    )
    before = trainer.evaluate()["eval_accuracy"]
    trainer.train()
    assert trainer.evaluate()["eval_accuracy"] > before + 0.3


@pytest.fixture
def numbers(tmp_path, digits):
    """Makes a trainer of digits as numbers to predict."""
    rows = tiny.with_column(digits, "labels", [label / 9 for label in digits.with_format(None)["labels"]])

    def trainer(**changes) -> DomainAdaptationTrainer:
        settings = {"max_steps": 2, "objectives": {"rsd": {}}, **changes}
        sets = {"train_dataset": rows.select(range(32)), "target_dataset": rows.select(range(32, 64))}
        model = tiny.vit(1, problem_type="regression")
        return DomainAdaptationTrainer(model, config(tmp_path, **settings), eval_dataset=rows.select([40, 50]), **sets)

    return trainer


def test_the_checkpoint_of_a_regression_is_chosen_by_dev(numbers, source, caplog):
    best = {"load_best_model_at_end": True, "eval_strategy": "steps", "eval_steps": 1, "save_strategy": "steps"}
    trainer = numbers(**best, save_steps=1, source_holdout=0.25)
    with caplog.at_level(logging.WARNING):
        trainer.train()
    assert "was chosen by `eval_dev`" in caplog.text and "without target labels" in caplog.text
    logged = [log["eval_dev"] for log in trainer.state.log_history if "eval_dev" in log]
    assert len(logged) == 2 and trainer.state.best_metric == max(logged)
    assert trainer.evaluate()["eval_dev"] == pytest.approx(max(logged), abs=1e-6)


def test_the_validators_of_a_regression(numbers, source):
    trainer = numbers(validator="source_risk")
    batch = tiny.batch_of(source, 32)
    with torch.no_grad():
        answers = trainer.adapted_model.eval()(batch["pixel_values"]).logits[:, 0]
    expected = -(answers - batch["labels"] / 9).square().mean().item()
    assert trainer.validate() == pytest.approx(expected, abs=1e-6)
    scores = trainer.validate_by_all()
    assert scores.keys() == {"dev", "dd", "source_risk"} and np.isfinite(list(scores.values())).all()
    with pytest.raises(ValueError, match="`snd` is not defined for regression.*accepted: dev, dd, source_risk"):
        numbers(validator="snd")


def test_several_labels_at_once_are_validated_by_their_own_risk(tmp_path, digits):
    several = [[label % 2, int(label > 4)] for label in digits.with_format(None)["labels"]]  # whole numbers
    rows = tiny.with_column(digits, "labels", several)
    model = tiny.vit(2, problem_type="multi_label_classification")
    args = config(tmp_path, validator="source_risk")
    sets = {"train_dataset": rows.select(range(32)), "target_dataset": rows.select(range(32, 64))}
    trainer = DomainAdaptationTrainer(model, args, objectives={}, **sets)
    batch = tiny.batch_of(rows, 32)
    with torch.no_grad():
        logits = trainer.adapted_model.eval()(batch["pixel_values"]).logits
    expected = -torch.nn.functional.binary_cross_entropy_with_logits(logits, batch["labels"].float()).item()
    assert trainer.validate() == pytest.approx(expected, abs=1e-6)
    assert trainer.validate_by_all().keys() == {"dev", "source_risk"}
    with pytest.raises(ValueError, match="`entropy` is not defined for multi_label_classification.*dev, source_risk"):
        DomainAdaptationTrainer(model, config(tmp_path, validator="entropy"), objectives={}, **sets)


def test_classes_that_a_model_rules_out_are_no_divergence(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target)
    outputs = list(trainer.validation_outputs())
    outputs[1][:, 3] = -torch.inf
    known = torch.where(outputs[3] == 3, 0, outputs[3])
    for name in WORKING["single_label_classification"]:
        assert np.isfinite(score(find_validator(name), (*outputs[:3], known), trainer.problem_type)), name
    outputs[1][5] = -torch.inf  # no class is left
    assert score(find_validator("entropy"), tuple(outputs)) == -np.inf
    outputs[1][5] = torch.inf
    assert score(find_validator("entropy"), tuple(outputs)) == -np.inf


def test_a_model_that_has_diverged_scores_worst(tmp_path, source, target):
    trainer = adapt(tmp_path, source, target)
    with torch.no_grad():
        trainer.adapted_model.classifier.bias[0] = float("nan")
    assert trainer.validate() == -np.inf
