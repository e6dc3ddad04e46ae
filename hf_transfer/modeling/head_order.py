"""A stored head whose classes have the data's names in another order."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import nn
from transformers.utils import logging

from hf_transfer.modeling.anatomy import linear_heads

logger = logging.get_logger(__name__)

SHOWN = 5


@torch.no_grad()
def order_head(model: nn.Module, stored: Sequence[str], wanted: Sequence[str], name: str) -> None:
    """Put the outputs of the head in the order of `wanted`; a head of other classes is told and stays as it is.

    Args:
        model: with a head of as many outputs.
        stored: names of the classes that the head was saved with, by its outputs.
        wanted: names of the classes of the data.
        name: of the model, for the log.
    """
    stored, wanted = [str(one) for one in stored], [str(one) for one in wanted]
    if len(stored) != len(wanted) or stored == wanted:
        return
    if sorted(stored) != sorted(wanted):
        logger.warning(
            f"{name} has a head of other classes ({', '.join(stored[:SHOWN])}{', ...' * (len(stored) > SHOWN)}): its "
            f"weights are where the head of yours ({', '.join(wanted[:SHOWN])}{', ...' * (len(wanted) > SHOWN)}) "
            "starts, output by output."
        )
        return
    order = torch.tensor([stored.index(one) for one in wanted])
    for head in linear_heads(model):
        for parameter in head.parameters():
            if parameter.shape[0] == len(wanted):
                parameter.copy_(parameter[order.to(parameter.device)])
    logger.warning(f"the head of {name} has the classes of the data in another order: its outputs are put in theirs.")
