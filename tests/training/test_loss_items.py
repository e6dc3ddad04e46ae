"""Items over which a loss is a mean: each counts the same in whichever part of a batch it is."""

import pytest
import torch

from hf_transfer.core.supervision import FromModel
from hf_transfer.models.flowformer import FlowformerForTimeSeriesPretraining, FlowformerForTrajectoryPretraining
from hf_transfer.training.transfer_model import TransferModel
from tests.modeling.test_readouts import segformer
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

MASK = torch.tensor([[1, 1, 1, 1, 1, 1, 1], [1, 1, 1, 0, 0, 0, 0]])
HIDDEN = torch.tensor([[0, 1, 1, 0, 0, 0, 1], [1, 0, 0, 0, 1, 1, 0]])


def maps() -> dict[str, torch.Tensor]:
    labels = torch.arange(2 * 32 * 32).reshape(2, 32, 32) % 4
    labels[0, :5], labels[1, :30] = 255, 255
    return {"pixel_values": torch.randn(2, 3, 32, 32), "labels": labels}


def series(**more) -> dict[str, torch.Tensor]:
    return {**tiny_inputs(tiny_config("time_series")), "attention_mask": MASK, **more}


def trajectories() -> dict[str, torch.Tensor]:
    inputs = tiny_inputs(tiny_config("trajectory"))
    return {**inputs, "labels": inputs["actions"], "attention_mask": MASK}


CASES = {
    "maps": (segformer, maps, 32 * (27 + 2)),
    "masked steps": (
        lambda: FlowformerForTimeSeriesPretraining(tiny_config("time_series")),
        lambda: series(hidden_steps=HIDDEN),
        4,
    ),
    "next step": (
        lambda: FlowformerForTimeSeriesPretraining(tiny_config("time_series", is_causal=True)),
        series,
        6 + 2,
    ),
    "trajectories": (lambda: FlowformerForTrajectoryPretraining(tiny_config("trajectory")), trajectories, 7 + 3),
}


@pytest.mark.parametrize("name", CASES)
def test_losses_of_single_rows_add_up_to_that_of_the_batch(name):
    torch.manual_seed(0)
    make, batch, items = CASES[name]
    model, batch = TransferModel(make(), task_loss=FromModel()).eval(), batch()
    model.training = True  # alone: dropout and batch norms stay still
    assert model.loss_items.count(batch) == items
    rows = [{key: value[row : row + 1] for key, value in batch.items()} for row in range(2)]
    total = model.loss_items.total(rows, torch.device("cpu"))
    assert total == items
    parts = [model(**row, items_per_batch=total).loss for row in rows]
    torch.testing.assert_close(sum(parts), model(**batch).loss)


def test_a_part_without_items_adds_nothing():
    torch.manual_seed(0)
    model, batch = TransferModel(segformer()), maps()
    batch["labels"][:] = 255
    loss = model(**batch, items_per_batch=torch.tensor(100)).loss
    loss.backward()
    assert loss == 0 and all(one.grad is None or one.grad.abs().sum() == 0 for one in model.parameters())


def test_batches_of_which_one_says_no_number_have_none():
    model = TransferModel(segformer())
    assert model.loss_items.total([maps(), {}], torch.device("cpu")) is None
    assert model.loss_items.total([], torch.device("cpu")) is None
