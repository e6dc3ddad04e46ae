"""What a model says of the tokens or pixels of some rows, for validators: they read units as they read rows."""

from __future__ import annotations

import torch
from datasets import Dataset
from torch import Tensor
from torch.utils.data import DataLoader
from transformers import Trainer

from hf_transfer.functional.processes import from_all_uneven, process_count

UNITS = 20_000
"""At most about so many units are kept: maps of pixels would fill the memory."""
DUPLICATE = -1
"""Domain of the units of rows that fill up the last batch of several processes."""


@torch.no_grad()
def unit_outputs(trainer: Trainer, rows: Dataset, most: int = UNITS) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Features [N, D], logits [N, C], domain [N] and labels [N] of units of the rows, alike in all processes.

    Of each batch as many random units are kept as it has rows times `most` divided by the number of all rows. They
    are drawn by the number of the batch alone, so that every pass over the same rows reads the same ones.

    Args:
        trainer: of a TransferModel whose readout gives parts of rows.
        rows: with a `domain` column and labels.
        most: units in all.
    """
    loader = trainer.get_test_dataloader(rows)
    model = trainer.model_wrapped
    was_training = model.training
    model.eval()
    parts = []
    for number, batch in enumerate(loader):
        inputs = trainer._prepare_inputs(batch)
        with trainer.compute_loss_context_manager():
            outputs = model(**inputs)
        kept = round(len(inputs["domain"]) * most / len(rows))
        real = outputs.row < real_rows(trainer, loader, len(inputs["domain"]))
        domain = outputs.unit_domain.where(real, DUPLICATE)
        units = (outputs.features, outputs.logits, domain, outputs.unit_labels)
        chosen = torch.randperm(len(domain), generator=torch.Generator().manual_seed(number))[: max(kept, 1)]
        parts.append([from_all_uneven(values[chosen.to(values.device)]).cpu() for values in units])
    model.train(was_training)
    features, logits, domain, labels = (torch.cat(values) for values in zip(*parts, strict=True))
    known = domain != DUPLICATE
    return features[known].float(), logits[known].float(), domain[known], labels[known]


def real_rows(trainer: Trainer, loader: DataLoader, rows: int) -> int:
    """How many of the rows of this process's batch no other process has: the last batch is filled up from the first.

    Args:
        trainer: whose processes share the batches.
        loader: at this batch.
        rows: of the batch.
    """
    remainder = getattr(loader, "remainder", -1)
    if process_count() == 1 or not getattr(loader, "end_of_dataloader", False) or remainder <= 0:
        return rows
    return min(max(remainder - trainer.args.process_index * rows, 0), rows)
