import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from safetensors.torch import load_file
from transformers import default_data_collator

from hf_transfer import DomainAdaptationTrainer, PretrainingTrainer, TransferConfig, TransferTrainer
from hf_transfer.core.label_sets import LabelSet
from hf_transfer.core.objective import IGNORED_LABEL, View
from hf_transfer.data.label_sets import LabelSetCollator, label_tables, with_class_numbers
from hf_transfer.data.visits import VISIT_COLUMN, Visit
from hf_transfer.pretraining.label_sets import LabelSets
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.single_run import make_adaptation
from tests import tiny
from tests.pretraining.conftest import WIDTH, rows
from tests.runs.folders import QUICK, save_text_model

COLUMNS = {"digit": 3, "angle": "regression", "tags": {"multi_label_classification": 2}}
LABELS = {
    "digit": torch.tensor([2, 0, IGNORED_LABEL, 1]),
    "angle": torch.tensor([[0.5], [-1.0], [2.0], [float(IGNORED_LABEL)]]),
    "tags": torch.tensor([[0.0, 1.0], [1.0, 1.0], [0.0, 0.0], [1.0, 0.0]]),
}


@pytest.fixture
def built(context):
    torch.manual_seed(0)
    objective = LabelSets(COLUMNS)
    objective.build(context)
    return objective


def test_value_and_gradient_against_the_formula(built):
    features = rows(4, WIDTH, 0).requires_grad_()
    loss = built(View(features, label_sets=LABELS))
    digit, angle, tags = (features @ head.weight.T + head.bias for head in built.heads)
    entropy = -sum(digit.log_softmax(1)[row, label] for row, label in ((0, 2), (1, 0), (3, 1))) / 3
    squares = sum((angle[row, 0] - LABELS["angle"][row, 0]) ** 2 for row in range(3)) / 3
    held = torch.where(LABELS["tags"] == 1, tags.sigmoid(), 1 - tags.sigmoid())
    torch.testing.assert_close(loss, entropy + squares - held.log().mean())
    torch.testing.assert_close(built.parts, {"digit": entropy, "angle": squares, "tags": -held.log().mean()})
    assert not any(part.requires_grad for part in built.parts.values())
    mine = torch.autograd.grad(loss, [features, *built.parameters()], retain_graph=True)
    theirs = torch.autograd.grad(entropy + squares - held.log().mean(), [features, *built.parameters()])
    for value, same in zip(mine, theirs, strict=True):
        torch.testing.assert_close(value, same)


def test_of_two_domains_the_source_alone_is_read(built):
    features, domain = rows(4, WIDTH, 0), torch.tensor([0, 1, 0, 1])
    both = built(View(features, label_sets=LABELS, domain=domain))
    source = View(features[::2], label_sets={name: value[::2] for name, value in LABELS.items()})
    torch.testing.assert_close(both, built(source))


def test_a_batch_without_any_known_label_has_no_loss(built):
    features = rows(4, WIDTH, 0).requires_grad_()
    unknown = {name: torch.full_like(value, IGNORED_LABEL) for name, value in LABELS.items()}
    loss = built(View(features, label_sets=unknown))
    loss.backward()
    assert loss == 0 and features.grad.abs().sum() == 0


@pytest.mark.parametrize("columns", [{}, None, ["digit"], {"digit": 1}, {"digit": True}, {"digit": "classes"}])
def test_invalid_columns_raise(columns):
    with pytest.raises(ValueError, match="`columns`"):
        LabelSets(columns)


def test_parts_of_rows_are_refused(context):
    readout = replace(context, readout=type("Parts", (), {"units_are_rows": False})())
    with pytest.raises(ValueError, match="label_sets compares whole rows"):
        LabelSets(COLUMNS).build(readout)


# The columns of the training set.


@pytest.mark.parametrize(
    ("values", "labels", "message"),
    [
        ([0, 1, None], LabelSet("single_label_classification", 2), "is empty in row 2"),
        ([0.0, 1.5, math.nan], LabelSet("regression", 1), "is empty in row 2"),
        ([0.0, 1.5, math.inf], LabelSet("regression", 1), "not finite"),
        ([0, 1, 2], LabelSet("single_label_classification", 2), r"outside 0..1: \[2\]"),
        ([0.5, 1.0, 1.0], LabelSet("single_label_classification", 2), "say `regression` in `columns`"),
        (["a", "b", "a"], LabelSet("single_label_classification", 2), "class_encode_column"),
        ([[0, 1]] * 3, LabelSet("multi_label_classification", 3), "should hold 3 numbers a row"),
        ([[0, 2]] * 3, LabelSet("multi_label_classification", 2), "outside 0..1"),
    ],
)
def test_columns_are_checked_before_training(values, labels, message):
    with pytest.raises(ValueError, match=f"column `further` of the training dataset .*{message}"):
        label_tables(Dataset.from_dict({"further": values}), {"further": labels})


def test_a_missing_column_and_the_tasks_own_are_refused():
    data, labels = Dataset.from_dict({"labels": [0, 1]}), LabelSet("single_label_classification", 2)
    with pytest.raises(ValueError, match="no column `digit` of further labels; it has"):
        label_tables(data, {"digit": labels})
    with pytest.raises(ValueError, match="holds the labels of the task itself"):
        label_tables(data, {"labels": labels})


@pytest.mark.parametrize("values", [["no", "yes", "no"], [False, True, False], [0, 1, 0]])
def test_words_and_truth_values_become_numbers_of_classes(values):
    sets = {"further": LabelSet("single_label_classification", 2)}
    data = with_class_numbers(Dataset.from_dict({"text": ["", "", ""], "labels": [0, 1, 0], "further": values}), sets)
    assert label_tables(data, sets)["further"].tolist() == [0, 1, 0]


# In a training.


def digits_with_sets(count: int = 24) -> Dataset:
    data = tiny.digit_rows(0, count)
    labels = np.asarray(data.with_format(None)["labels"])
    return tiny.with_column(tiny.with_column(data, "parity", (labels % 2).tolist()), "size", (labels / 10).tolist())


def config(folder, **changes) -> TransferConfig:
    settings = {"max_steps": 3, "per_device_train_batch_size": 8, "logging_steps": 1, "save_strategy": "no"}
    settings |= {"objectives": {"label_sets": {"columns": {"parity": 2, "size": "regression"}}}, **changes}
    return TransferConfig(str(folder), report_to=[], use_cpu=True, **settings)


def test_every_batch_has_the_labels_of_its_rows(tmp_path):
    data = digits_with_sets()
    trainer = TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=data)
    assert isinstance(trainer.train_collator, LabelSetCollator)
    for batch in trainer.get_train_dataloader():
        assert torch.equal(batch["label_set_parity"], batch["labels"] % 2)
        torch.testing.assert_close(batch["label_set_size"][:, 0], batch["labels"] / 10)
    assert "label_set_parity" not in next(iter(trainer.get_eval_dataloader(data)))


def test_the_log_has_the_loss_of_each_set_and_the_heads_are_saved(tmp_path):
    augmentation = {"augmentation": {}}
    trainer = TransferTrainer(tiny.vit(), config(tmp_path, **augmentation), train_dataset=digits_with_sets())
    trainer.train()
    log = trainer.state.log_history[0]
    assert log["loss_label_sets"] == pytest.approx(
        log["loss_label_sets_parity"] + log["loss_label_sets_size"], abs=1e-5
    )
    assert log["loss"] == pytest.approx(log["loss_task"] + log["loss_label_sets"], abs=1e-4)
    trainer.save_model(str(tmp_path / "model"))
    shapes = {name: list(value.shape) for name, value in load_file(tmp_path / "model/objectives.safetensors").items()}
    assert shapes["objectives.label_sets.heads.0.weight"] == [2, 16]
    assert shapes["objectives.label_sets.heads.1.weight"] == [1, 16]


def test_a_backbone_learns_from_the_further_sets_alone_and_from_views(tmp_path):
    torch.manual_seed(0)
    objectives = {"label_sets": {"columns": {"parity": 2}}, "simclr": {"projection_dim": 8}}
    args = config(tmp_path, objectives=objectives, augmentation={"views": "small"}, learning_rate=0.01)
    data = digits_with_sets().remove_columns("labels")
    trainer = PretrainingTrainer(tiny.flowformer().flowformer, args, train_dataset=data)
    trainer.train()
    assert {"loss_simclr", "loss_label_sets_parity"} <= set(trainer.state.log_history[0])


def test_it_learns(tmp_path):
    torch.manual_seed(0)
    args = config(tmp_path, max_steps=25, learning_rate=0.003, task_loss_weight=0.0)
    trainer = TransferTrainer(tiny.vit(initializer_range=0.3), args, train_dataset=digits_with_sets(8))
    trainer.train()
    losses = [entry["loss_label_sets_parity"] for entry in trainer.state.log_history if "loss" in entry]
    assert losses[-1] < losses[0] - 0.3


def test_it_composes_with_a_domain_adaptation(tmp_path):
    source, target = digits_with_sets(), digits_with_sets().with_format(None)
    for column in ("parity", "size"):
        target = target.remove_columns(column).add_column(
            column, [type(target[0][column])(IGNORED_LABEL)] * len(target)
        )
    args = config(tmp_path)
    args.objectives = {**args.objectives, "coral": {}}
    target = target.with_format("torch")
    trainer = DomainAdaptationTrainer(tiny.vit(), args, train_dataset=source, target_dataset=target)
    trainer.train()
    assert {"loss_coral", "loss_label_sets_size"} <= set(trainer.state.log_history[0])


def test_words_of_a_table_reach_a_training_of_texts(tmp_path, monkeypatch):
    """The column of words is no text to read, and is known to be wrong before anything is made of the rows."""
    monkeypatch.chdir(tmp_path)
    save_text_model(tmp_path / "bert", tiny.bert())
    lines = [f"moby dick,{index % 3},{('sea', 'land')[index % 2]}" for index in range(16)]
    (tmp_path / "books.csv").write_text("\n".join(["text,label,place", *lines]))
    wanted = ["--model", "bert", "--dataset", "books.csv", "--task", "text-classification", *QUICK, "--output_dir"]
    columns = "{label_sets: {columns: {place: %d}}}"
    trainer, data = make_adaptation(parse_arguments([*wanted, "out", "--objectives", columns % 2]))
    assert "place" in data.train.column_names
    batch = next(iter(trainer.get_train_dataloader()))
    assert sorted(set(batch["label_set_place"].tolist())) == [0, 1]
    trainer.train()
    wrong = parse_arguments([*wanted, "out", "--objectives", "{label_sets: {columns: {page: 2}}}"])
    with pytest.raises(ValueError, match="no column `page` of further labels"):
        make_adaptation(wrong)


def test_a_collator_of_views_keeps_its_visits():
    seen = []

    class Reading:
        reads_visits = True

        def __call__(self, given):
            seen.append(set(given[0]))
            return default_data_collator([{"x": row["x"]} for row in given])

    given = [{"x": 1.0, VISIT_COLUMN: Visit(2, 0, 0)}]
    tables = {"digit": torch.tensor([5, 6, 7])}
    assert LabelSetCollator(Reading(), tables)(given)["label_set_digit"].tolist() == [7]
    assert LabelSetCollator(default_data_collator, tables)(given)["label_set_digit"].tolist() == [7]
    assert VISIT_COLUMN in seen[0]
