"""Tables for the card of a run that drew on several models: which they are, how much each counts, what it costs."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor, nn
from torch.utils.data import DataLoader
from torch.utils.flop_counter import FlopCounterMode

from hf_transfer.hub import TableFact
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.multi_model.b_tuning import BTuning
from hf_transfer.multi_model.composite import accepted_inputs
from hf_transfer.multi_model.hub_pathway import HubPathway
from hf_transfer.multi_model.hub_pathway import usage as share_of_rows
from hf_transfer.multi_model.teacher import model_inputs
from hf_transfer.multi_model.zoo_tuning import NAME as ZOO_TUNING
from hf_transfer.runs.data import RunData
from hf_transfer.training.converters import conversions_of
from hf_transfer.training.trainer import TransferTrainer


def member_tables(trainer: TransferTrainer, data: RunData) -> list[TableFact]:
    """What the card says of the models that a trained one was made of or taught by; empty where there were none.

    Args:
        trainer: after its training.
        data: of the run.
    """
    model = unwrap_peft(trainer.adapted_model)
    tables = []
    rows = data.train if data.test is None else data.test
    if isinstance(model, HubPathway) and isinstance(rows, Dataset):
        batches = DataLoader(rows, trainer.args.per_device_eval_batch_size, collate_fn=trainer.data_collator)
        tables.append(pathway_table(model, batches, "training" if data.test is None else "test"))
    if ZOO_TUNING in sidecars_of(model):
        tables.append(zoo_table(model))
    objectives = trainer.transfer_model.objectives.values()
    return tables + [teacher_table(one) for one in objectives if isinstance(one, BTuning)]


def pathway_table(model: HubPathway, batches: Iterable[Mapping[str, Any]], what: str) -> TableFact:
    """Which share of the rows runs each member, and the operations of a row.

    Args:
        model: the hub.
        batches: of the rows.
        what: rows they are.
    """
    first = next(inputs_of(batches, model.device))
    rows = len(first[model.main_input_name])
    shares = share_of_rows(model, inputs_of(batches, model.device)).tolist()
    costs = [gigaflops(member, first) / rows for member in model.hub.members]
    caption = (
        f"Share of the {what} rows that each model runs on, {model.config.top} a row, and GFLOPs of a row. A "
        f"prediction of the whole takes {gigaflops(model, first) / rows:.3g} GFLOPs a row, all members together "
        f"{sum(costs):.3g}."
    )
    names = [member.config.name_or_path for member in model.hub.members]
    table = [[name, share, cost] for name, share, cost in zip(names, shares, costs, strict=True)]
    return TableFact("The models of the hub", ["model", "share of rows", "GFLOPs"], table, caption)


def zoo_table(model: nn.Module) -> TableFact:
    """How open the gates of each source are, in the moving average, as a mean over the layers."""
    layers = sidecars_of(model)[ZOO_TUNING].layers.values()
    gates = torch.stack([experts.mean_gates for experts in layers]).mean(dim=0).tolist()
    sources = [model.config.name_or_path, *conversions_of(model)[ZOO_TUNING]["checkpoints"]]
    caption = f"Mean over the {len(layers)} mixed layers of the moving average of each source's gates."
    rows = [[name, gate] for name, gate in zip(sources, gates, strict=True)]
    return TableFact("The models whose kernels are mixed", ["model", "gate"], rows, caption)


def teacher_table(objective: BTuning) -> TableFact:
    """The shares of the teachers of B-Tuning."""
    names = [teacher.name.removeprefix("the teacher ").strip("`") for teacher in objective.teachers]
    caption = f"The teachers' shares in what the model was taught, with weight {objective.weight:.4g}."
    rows = [[name, share] for name, share in zip(names, objective.shares.tolist(), strict=True)]
    return TableFact("The teachers", ["model", "share"], rows, caption)


def inputs_of(batches: Iterable[Mapping[str, Any]], device: torch.device) -> Iterator[dict[str, Tensor]]:
    """What a model reads of every batch, on its device."""
    for batch in batches:
        yield {name: value.to(device) for name, value in model_inputs(batch).items() if isinstance(value, Tensor)}


@torch.no_grad()
def gigaflops(model: nn.Module, inputs: Mapping[str, Tensor]) -> float:
    """10^9 operations of a forward pass in evaluation, as PyTorch counts those of matrix products and convolutions."""
    was_training = model.training
    model.eval()
    with FlopCounterMode(display=False) as counter:
        model(**accepted_inputs(model, inputs))
    model.train(was_training)
    return counter.get_total_flops() / 1e9
