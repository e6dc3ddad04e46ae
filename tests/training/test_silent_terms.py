"""An objective that trained nothing is told at the end of a training, and no other."""

import logging

import pytest

from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


@pytest.fixture
def heard(caplog):
    logging.getLogger("hf_transfer.training.silent_terms").addHandler(caplog.handler)
    yield caplog
    logging.getLogger("hf_transfer.training.silent_terms").removeHandler(caplog.handler)


@pytest.mark.parametrize("threshold, told", [(0.999, ["pseudo_label"]), (0.0, [])])
def test_a_threshold_that_no_row_reaches(threshold, told, heard, tmp_path, digits):
    rows = digits.add_column("domain", [place % 2 for place in range(len(digits))])
    config = TransferConfig(str(tmp_path), max_steps=2, per_device_train_batch_size=8, report_to=[], disable_tqdm=True)
    objectives = {"pseudo_label": {"threshold": threshold}, "l2_sp": {}}
    TransferTrainer(tiny.vit(), config, objectives=objectives, train_dataset=rows).train()
    warnings = [record.getMessage() for record in heard.records if "0 in every step" in record.getMessage()]
    assert [name for name in ("pseudo_label", "l2_sp", "task") if any(f"`{name}`" in one for one in warnings)] == told


def test_a_phase_that_has_the_task_loss_alone_is_no_silent_objective(heard, tmp_path, digits):
    rows = digits.add_column("domain", [place % 2 for place in range(len(digits))])
    config = TransferConfig(str(tmp_path), max_steps=2, per_device_train_batch_size=8, report_to=[], disable_tqdm=True)
    TransferTrainer(tiny.vit(), config, objectives={"adda": {"hidden_size": 8}}, train_dataset=rows).train()
    assert not [record for record in heard.records if "0 in every step" in record.getMessage()]
