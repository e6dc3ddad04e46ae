"""A resumed training is compared with the one that left the checkpoint."""

import json
import logging
from pathlib import Path

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer import TaskAdaptationTrainer, TransferConfig
from hf_transfer.training.checkpoints import RECORD, check_length
from tests import tiny


def trainer(folder: Path, rows, steps: int = 2, **settings) -> TaskAdaptationTrainer:
    keywords = {"save_steps": 1, "report_to": [], "use_cpu": True, "per_device_train_batch_size": 8}
    config = TransferConfig(str(folder), max_steps=steps, **{**keywords, **settings})
    return TaskAdaptationTrainer(tiny.vit(), config, train_dataset=rows)


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits) -> Path:
    """The folder of a finished run of two steps."""
    folder = tmp_path_factory.mktemp("finished")
    trainer(folder, digits).train()
    return folder


def warnings_of(caplog) -> str:
    return " ".join(record.getMessage() for record in caplog.records if record.levelname == "WARNING")


@pytest.fixture
def heard(caplog):
    """What transformers' loggers say, which do not pass it on to pytest."""
    logging.getLogger("hf_transfer.training.checkpoints").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("hf_transfer.training.checkpoints").removeHandler(caplog.handler)


def test_other_rows_are_refused_before_any_step(finished, digits):
    labels = digits.with_format(None)["labels"][:]
    other = digits.remove_columns("labels").add_column("labels", labels[1:] + labels[:1])
    for rows in (other, digits.select(range(63))):
        with pytest.raises(ValueError, match=r"checkpoint-2 was trained with other rows .*its training data differ"):
            trainer(finished, rows).train(resume_from_checkpoint=True)


def test_more_steps_after_a_finished_schedule_are_refused(finished, digits):
    with pytest.raises(ValueError, match="end of a run of 2 steps, whose schedule is finished; with 4 steps"):
        trainer(finished, digits, steps=4).train(resume_from_checkpoint=True)


def test_a_run_cut_short_says_that_it_has_another_length(finished, heard):
    check_length(finished / "checkpoint-1", 4, is_constant=False)
    assert "is of a run of 2 steps and this one has 4" in warnings_of(heard)
    heard.clear()
    check_length(finished / "checkpoint-1", 2, is_constant=False)
    check_length(finished / "checkpoint-2", 4, is_constant=True)
    assert not warnings_of(heard)


def test_other_settings_are_told(finished, digits, heard):
    trainer(finished, digits, learning_rate=1.0, seed=5).train(resume_from_checkpoint=True)
    said = warnings_of(heard)
    assert "`learning_rate` 5e-05 -> 1.0" in said and "`seed` 42 -> 5" in said and "`weight_decay`" not in said


def test_the_same_run_goes_on_without_a_word(finished, digits, heard):
    trainer(finished, digits).train(resume_from_checkpoint=str(finished / "checkpoint-1"))
    assert not warnings_of(heard)


def test_a_finished_run_takes_no_step_more(finished, digits):
    straight = AutoModelForImageClassification.from_pretrained(finished / "checkpoint-2").state_dict()
    again = trainer(finished, digits)
    output = again.train(resume_from_checkpoint=True)
    assert output.global_step == again.state.global_step == 2
    assert [item.name for item in sorted(finished.glob("checkpoint-*"))] == ["checkpoint-1", "checkpoint-2"]
    kept = again.adapted_model.state_dict()
    assert all(torch.equal(value, kept[name]) for name, value in straight.items())


def test_objectives_are_settings_too(finished, digits, heard):
    bss = trainer(finished, digits, objectives={"bss": {"weight": 0.5}})
    bss.train(resume_from_checkpoint=True)
    assert "`objectives` {} -> {'bss':" in warnings_of(heard)


def test_a_checkpoint_without_a_record_is_told(finished, digits, heard, tmp_path):
    record = finished / "checkpoint-2" / RECORD
    assert json.loads(record.read_text())["rows"].keys() == {"training"}
    text = record.read_text()
    record.unlink()
    try:
        trainer(finished, digits).train(resume_from_checkpoint=True)
    finally:
        record.write_text(text)
    assert "whether its rows and settings are these is not known" in warnings_of(heard)
