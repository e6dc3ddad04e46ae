"""The outputs that validators, evaluation and pictures share, and when they are thrown away."""

import pytest
import torch

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, join_domains
from tests import tiny
from tests.training.test_trainer import config


@pytest.fixture(scope="module")
def trainer(tmp_path_factory, digits):
    torch.manual_seed(0)
    args = config(tmp_path_factory.mktemp("outputs"), max_steps=1)
    rows = {"train_dataset": digits.select(range(32)), "target_dataset": digits.select(range(32, 64))}
    return DomainAdaptationTrainer(tiny.vit(), args, objectives={"mcc": {}}, **rows)


def test_outputs_are_kept_only_where_asked(trainer):
    first = trainer.validation_outputs()
    assert trainer.validation_outputs() is not first and trainer.kept_outputs is None
    trainer.keeps_outputs = True
    kept = trainer.validation_outputs()
    assert trainer.validation_outputs() is kept is trainer.kept_outputs
    for one, other in zip(first, kept):
        torch.testing.assert_close(one, other)


def test_some_rows_are_neither_kept_nor_those_that_were(trainer):
    trainer.keeps_outputs, trainer.kept_outputs = True, None
    some = trainer.validation_dataset.select(range(5))
    assert [len(part) for part in trainer.validation_outputs(some)] == [5] * 4 and trainer.kept_outputs is None
    kept = trainer.validation_outputs()
    found = trainer.validation_outputs(some)
    assert [len(part) for part in found] == [5] * 4 and trainer.kept_outputs is kept
    torch.testing.assert_close(found[1], kept[1][:5])


def test_training_forgets_them(trainer):
    trainer.keeps_outputs = True
    before = trainer.validation_outputs()
    trainer.train()
    assert trainer.kept_outputs is None and not trainer.keeps_outputs
    assert not torch.equal(trainer.validation_outputs()[1], before[1])


def test_labels_of_the_target_that_are_unknown_are_not_told_of(digits, caplog):
    domains = [0] * 32 + [1] * 32
    labels = digits.with_format(None)["labels"][:32]
    rows = tiny.with_column(digits.select(range(64)), "domain", domains)
    hidden = tiny.with_column(rows, "labels", [*labels, *[IGNORED_LABEL] * 32])
    join_domains(hidden, None)
    assert "not read" not in caplog.text
    join_domains(rows, None)
    assert "the target has labels (column `labels`); they are not read." in caplog.text
