"""Training sets that are read as they come train as others do, and a resumed run equals a straight one."""

import pytest
import torch
from datasets import Dataset, IterableDataset
from transformers import DataCollatorForLanguageModeling

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.data.streams import DomainStream
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, PretrainingTrainer, TaskAdaptationTrainer
from hf_transfer.training.trainer import TransferTrainer
from tests import tiny
from tests.marks import slow
from tests.runs.folders import causal_lm
from tests.training.test_trainer import assert_same, config, state_of


@pytest.fixture(scope="module")
def stream(digits):
    """64 digits, in an order of its own in each epoch; four of a batch are an epoch of 16 steps."""
    return as_stream(digits).shuffle(seed=3, buffer_size=16)


def as_stream(rows: Dataset) -> IterableDataset:
    """Rows whose pictures are read already."""
    columns = {name: [torch.as_tensor(row[name]).tolist() for row in rows] for name in rows[0]}
    return Dataset.from_dict(columns).to_iterable_dataset()


def make(folder, rows, objectives=None, family=TransferTrainer, **changes) -> TransferTrainer:
    torch.manual_seed(0)
    given = {"target_dataset": rows} if family is DomainAdaptationTrainer else {}
    args = config(folder, **changes)
    return family(tiny.vit(), args, train_dataset=rows, objectives=objectives or {}, **given)


def seen_by(trainer: TransferTrainer, batches: int) -> list[torch.Tensor]:
    found = []
    for batch in trainer.get_train_dataloader():
        found.append(batch["pixel_values"].clone())
        if len(found) == batches:
            return found


def test_the_batches_are_those_of_the_stream(tmp_path, stream):
    """Over the end of the stream, after which the next epoch's order begins."""
    stream.set_epoch(0)
    rows = [torch.as_tensor(row["pixel_values"]) for row in stream]
    stream.set_epoch(1)
    rows += [torch.as_tensor(row["pixel_values"]) for row in stream]
    assert not torch.equal(rows[0], rows[64])
    trainer = make(tmp_path, stream, per_device_train_batch_size=24)
    for number, batch in enumerate(seen_by(trainer, 5)):
        torch.testing.assert_close(batch, torch.stack(rows[24 * number : 24 * number + 24]))


@pytest.mark.parametrize(
    ("family", "objectives", "changes"),
    [
        (TransferTrainer, {"l2_sp": {}}, {}),
        (
            TaskAdaptationTrainer,
            {"bi_tuning": {"queue_size": 8, "projection_dim": 8}},
            {"augmentation": {"shift": 0.2}},
        ),
        (DomainAdaptationTrainer, {"dann": {"hidden_size": 8}}, {}),
        slow(DomainAdaptationTrainer, {"fixmatch": {}}, {}),
    ],
)
def test_resuming_equals_a_straight_run(tmp_path, stream, family, objectives, changes):
    """From a checkpoint within the second reading of the stream."""
    settings = {"max_steps": 12, "save_steps": 10, "per_device_train_batch_size": 8, **changes}
    straight = make(tmp_path, stream, objectives, family, save_strategy="steps", **settings)
    before = state_of(straight)
    straight.train()
    assert any(not torch.equal(value, before[name]) for name, value in state_of(straight).items())
    resumed = make(tmp_path, stream, objectives, family, **settings)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-10"))
    assert_same(state_of(resumed), state_of(straight))


def test_halves_of_two_domains_and_no_label_of_the_target(digits):
    short = as_stream(digits.select(range(6)))
    rows = iter(DomainStream(as_stream(digits), short, batch_size=8))
    batch = [next(rows) for _ in range(16)]
    assert [row["domain"] for row in batch] == [0] * 4 + [1] * 4 + [0] * 4 + [1] * 4
    assert all((row["labels"] == IGNORED_LABEL) == (row["domain"] == 1) for row in batch)
    pixels = [torch.as_tensor(row["pixel_values"]) for row in batch]
    assert torch.equal(pixels[14], pixels[4]) and torch.equal(pixels[15], pixels[5]), "the shorter one begins again"


def test_source_only_reads_no_row_of_the_target(tmp_path, digits):
    rows = as_stream(digits)
    trainer = make(tmp_path, rows, {}, DomainAdaptationTrainer, per_device_train_batch_size=8)
    read = torch.cat(seen_by(trainer, 3))
    assert torch.equal(read, torch.stack([torch.as_tensor(row["pixel_values"]) for row in rows.take(12)]))


def test_visits_tell_rows_epochs_and_domains_apart(digits):
    few = as_stream(digits.select(range(2)))
    stream = DomainStream(few, few, batch_size=2)
    stream.with_visits = True
    rows = iter(stream)
    visits = [next(rows)["visit"] for _ in range(8)]
    assert len(set(visits)) == 8 and [visit.epoch for visit in visits] == [0, 0, 0, 0, 1, 1, 1, 1]


def test_the_model_learns_from_a_stream(tmp_path, stream):
    trainer = make(
        tmp_path, stream, max_steps=60, logging_steps=10, per_device_train_batch_size=16, learning_rate=5e-3
    )
    trainer.train()
    losses = [log["loss"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < 0.95 * losses[0]


def test_texts_pretrain_from_a_stream(tmp_path):
    torch.manual_seed(0)
    rows = Dataset.from_dict({"input_ids": tiny.text_rows()["input_ids"][:]}).to_iterable_dataset()
    collator = DataCollatorForLanguageModeling(tiny.tokenizer(), mlm=False)
    args = config(tmp_path, max_steps=3)
    trainer = PretrainingTrainer(causal_lm(), args, train_dataset=rows, data_collator=collator)
    trainer.train()
    assert trainer.state.global_step == 3


def test_what_a_stream_cannot_do_is_refused_before_training(tmp_path, digits, stream):
    with pytest.raises(ValueError, match="a stream does not say where it ends: give `max_steps`"):
        make(tmp_path, stream, max_steps=-1)
    with pytest.raises(ValueError, match="`dataloader_num_workers` should be 0"):
        make(tmp_path, stream, dataloader_num_workers=1)
    with pytest.raises(ValueError, match="objective `ewc` reads the whole training set before training"):
        make(tmp_path, stream, {"ewc": {}})
    with pytest.raises(ValueError, match="objective `prototypical` reads the whole"):
        make(tmp_path, stream, {"prototypical": {}})
    with pytest.raises(ValueError, match="the training stream is empty"):
        make(tmp_path, stream.filter(lambda row: False))
    with pytest.raises(ValueError, match="labels outside 0..2"):
        TransferTrainer(tiny.vit(num_labels=3), config(tmp_path), train_dataset=stream)
    with pytest.raises(ValueError, match="source and target should both be streams"):
        DomainAdaptationTrainer(tiny.vit(), config(tmp_path), train_dataset=stream, target_dataset=digits)
    with pytest.raises(ValueError, match="`source_holdout` draws rows by number"):
        make(tmp_path, stream, family=DomainAdaptationTrainer, source_holdout=0.5)
    with pytest.raises(ValueError, match="should be even"):
        make(tmp_path, stream, family=DomainAdaptationTrainer, per_device_train_batch_size=5)


def test_a_class_that_the_model_lacks_is_named_when_it_comes(tmp_path, digits):
    """Beyond the rows that are looked at before."""
    labels = [0, 1] * 140
    labels[270] = 11
    pixels = [torch.as_tensor(digits[0]["pixel_values"]).tolist()] * 280
    rows = Dataset.from_dict({"pixel_values": pixels, "labels": labels}).to_iterable_dataset()
    trainer = make(tmp_path, rows, max_steps=40, per_device_train_batch_size=8)
    with pytest.raises(ValueError, match="row 270 of the training stream: the label 11 is outside 0..9"):
        trainer.train()
