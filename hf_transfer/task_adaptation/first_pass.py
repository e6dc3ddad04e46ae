"""Reading a dataloader before training, for objectives that measure something on the data first."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from hf_transfer.core.task_loss import known_rows

NOT_INPUTS = ("labels", "label", "domain")


def labelled_batches(
    dataloader: Iterable[Mapping[str, Tensor]], device: torch.device
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """(model inputs, labels) of the rows that have a label; batches without any are passed over.

    Raises:
        ValueError: a batch has no `labels`.
    """
    for batch in dataloader:
        if "labels" not in batch:
            raise ValueError(f"this objective measures on labelled data; the batch has only {sorted(batch)}.")
        known = known_rows(batch["labels"])
        if known.any():
            inputs = {name: value[known].to(device) for name, value in model_inputs(batch).items()}
            yield inputs, batch["labels"][known].to(device)


def model_inputs(batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The entries of a batch that the model itself reads: no label, domain or second view."""
    return {name: value for name, value in batch.items() if name not in NOT_INPUTS and not name.startswith("view_")}


@contextmanager
def all_differentiable(model: nn.Module) -> Iterator[None]:
    """Gradients flow through every parameter, frozen ones too, so that every hidden state has one."""
    frozen = [parameter for parameter in model.parameters() if not parameter.requires_grad]
    for parameter in frozen:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(False)


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """The model in evaluation mode, and back in its own mode afterwards."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
