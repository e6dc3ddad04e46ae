"""Copies of the start that never change are written once for all checkpoints."""

import shutil

import pytest
import torch
from safetensors.torch import load_file

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.training.constant_copies import CONSTANTS_FILE, constant_names
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny
from tests.training.test_trainer import assert_same, state_of


def make(folder, rows, objectives=None, **changes) -> TransferTrainer:
    torch.manual_seed(0)
    settings = {"max_steps": 3, "save_steps": 1, "report_to": [], "use_cpu": True, "disable_tqdm": True, **changes}
    args = TransferConfig(str(folder), per_device_train_batch_size=8, save_strategy="steps", **settings)
    return TransferTrainer(tiny.vit(), args, objectives=objectives or {"l2_sp": {}, "ewc": {}}, train_dataset=rows)


def names_in(folder) -> set[str]:
    return set(load_file(folder / "objectives.safetensors"))


@pytest.fixture(scope="module")
def finished(tmp_path_factory, digits):
    folder = tmp_path_factory.mktemp("constants") / "run"
    trainer = make(folder, digits)
    trainer.train()
    return folder, trainer


def test_no_checkpoint_repeats_them(finished):
    folder, trainer = finished
    constants = constant_names(trainer.transfer_model)
    assert {name.split(".")[1] for name in constants} == {"l2_sp", "ewc"} and not any("fisher" in n for n in constants)
    assert set(load_file(folder / CONSTANTS_FILE)) == constants
    for step in (1, 2, 3):
        kept = names_in(folder / f"checkpoint-{step}")
        assert kept and not kept & constants
    assert not list(folder.glob(f".{CONSTANTS_FILE}*"))


def test_what_is_saved_after_the_training_stands_alone(finished, tmp_path):
    _, trainer = finished
    trainer.save_model(str(tmp_path))
    assert constant_names(trainer.transfer_model) <= names_in(tmp_path)
    trainer.transfer_model.load_weights(tmp_path)


@pytest.mark.parametrize("elsewhere", [False, True], ids=["same folder", "another folder"])
def test_a_resumed_run_has_them_back(elsewhere, finished, tmp_path, digits):
    folder, straight = finished
    resumed = make(tmp_path / "other" if elsewhere else folder, digits)
    with torch.no_grad():
        for value in (*resumed.transfer_model.parameters(), *resumed.transfer_model.buffers()):
            value.add_(1)
    resumed.train(resume_from_checkpoint=str(folder / "checkpoint-2"))
    assert_same(state_of(resumed), state_of(straight), rtol=0, atol=0)
    assert (tmp_path / "other" / CONSTANTS_FILE).is_file() == elsewhere


def test_a_checkpoint_that_was_moved_goes_on_from_the_same_start(finished, tmp_path, digits):
    folder, straight = finished
    shutil.copytree(folder / "checkpoint-2", tmp_path / "checkpoint-2")
    resumed = make(tmp_path / "new", digits)
    with torch.no_grad():
        for value in resumed.adapted_model.parameters():
            value.zero_()
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))
    assert_same(state_of(resumed), state_of(straight), rtol=0, atol=0)


def test_a_checkpoint_without_them_says_which_file_it_needs(finished, tmp_path, digits):
    folder, _ = finished
    shutil.copytree(folder / "checkpoint-2", tmp_path / "checkpoint-2")
    trainer = make(tmp_path / "new", digits)
    next(trainer.transfer_model.objectives["l2_sp"].start.buffers()).add_(1)
    with pytest.raises(FileNotFoundError, match=f"goes with {CONSTANTS_FILE}.*put that file"):
        trainer.train(resume_from_checkpoint=str(tmp_path / "checkpoint-2"))


def test_those_of_another_training_are_refused(finished, tmp_path, digits):
    folder, _ = finished
    other = make(tmp_path / "other", digits, max_steps=1)
    next(other.transfer_model.objectives["l2_sp"].start.buffers()).add_(1)
    other.train()
    shutil.copytree(folder / "checkpoint-2", tmp_path / "other" / "checkpoint-2")
    with pytest.raises(RuntimeError, match="is of another training"):
        make(tmp_path / "other", digits).train(resume_from_checkpoint=str(tmp_path / "other" / "checkpoint-2"))


def test_checkpoints_that_are_pushed_alone_have_them(tmp_path, digits, monkeypatch):
    trainer = make(tmp_path, digits, max_steps=1)
    monkeypatch.setattr(trainer.args, "push_to_hub", True)
    trainer.args.hub_strategy = "checkpoint"
    trainer._keep_constants(tmp_path)
    assert trainer.transfer_model.constants_checksum is None and not (tmp_path / CONSTANTS_FILE).exists()


def test_a_copy_that_moves_is_persistent():
    with pytest.raises(ValueError, match="`persistent` should be True"):
        FrozenCopy(torch.nn.Linear(2, 2), momentum=0.9, persistent=False)
    with pytest.raises(ValueError, match="never changes"):
        FrozenCopy(torch.nn.Linear(2, 2), persistent=False).update(torch.nn.Linear(2, 2), 0.5)
