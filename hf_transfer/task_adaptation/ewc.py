"""Elastic weight consolidation: weights that mattered for what the model knew are held near their start.

    loss = strength/2 sum_i F_i (w_i - w0_i)^2,   F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2 at w0

F is the diagonal Fisher information of the starting model, with y drawn from the model's own predictions (a class,
several labels independently of each other, or numbers of variance 1), so no label is read. It should be measured on
the data the model comes from and with the head it knew them by: give that data as `source`, or store it with the model
by `save_fisher` and name its folder as `fisher`. Without either F is measured on the training set.

Paper: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017,
https://huggingface.co/papers/1612.00796. Strength 400 as in its Atari runs; it depends on the scale of F, so tune it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn
from transformers import PreTrainedConfig

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.readout import Units
from hf_transfer.core.task_loss import (
    ANY_PROBLEM,
    REGRESSION,
    SINGLE_LABEL,
    declared_problem_type,
    draw_labels,
    negative_log_likelihood,
)
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.functional.weight_distance import half_squared_distance
from hf_transfer.modeling.anatomy import backbone_parameter_names
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.task_adaptation.first_pass import evaluating, model_inputs
from hf_transfer.task_adaptation.starting_point import NamedTensors, named_parameters

FISHER_FILE = "fisher.safetensors"


class EWC(Objective):
    """Fisher-weighted squared distance of the backbone from its starting point.

    Args:
        strength: lambda, >= 0.
        samples: how many rows the Fisher information is estimated on, one backward pass each.
        source: batches of model inputs to estimate it on, for example the pre-training data's dataloader.
        fisher: a folder in which `save_fisher` stored the information; nothing is estimated then.
        seed: of the drawn labels.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `strength` is negative, or `samples` is not positive; `source` and `fisher` are both given; at
            `prepare`, the stored information is missing or is that of another model.
    """

    paper = "1612.00796"
    tasks = ANY_PROBLEM
    needs = frozenset({"weights"})

    def __init__(
        self,
        strength: float = 400.0,
        samples: int = 256,
        source: Iterable[Mapping[str, Tensor]] | None = None,
        fisher: str | None = None,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(strength=strength)
        require_positive(samples=samples)
        if source is not None and fisher is not None:
            raise ValueError("`fisher` is stored information and `source` is to estimate it on: give one of them.")
        self.fisher_folder = fisher
        self.strength = strength
        self.samples = samples
        self.source = source
        self.seed = seed

    def build(self, context: BuildContext) -> None:
        parameters = named_parameters(context.model, backbone_parameter_names(context.model))
        self.start = NamedTensors(parameters, persistent=False)
        self.fisher = NamedTensors({name: torch.zeros_like(value) for name, value in parameters.items()})

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Read F, or estimate it on the first `samples` rows of `source` or of the training set."""
        if self.fisher_folder is not None:
            information = load_fisher(self.fisher_folder)
        else:
            batches = self.source or dataloader
            information = estimate_fisher(model, batches, self.samples, self.seed, self.fisher.names)
        for name in self.fisher.names:
            if name not in information or information[name].shape != self.fisher[name].shape:
                raise ValueError(f"the information in {self.fisher_folder} has no `{name}` of this model's shape.")
            self.fisher[name].copy_(information[name])

    def forward(self, view: View) -> Tensor:
        backbone = named_parameters(view.model, self.start.names).values()
        starts, fisher = ([kept[name] for name in self.start.names] for kept in (self.start, self.fisher))
        return no_loss(view) + self.strength * half_squared_distance(list(backbone), starts, fisher)


def estimate_fisher(
    model: nn.Module,
    batches: Iterable[Mapping[str, Tensor]],
    samples: int = 256,
    seed: int = 0,
    names: Iterable[str] | None = None,
) -> dict[str, Tensor]:
    """The diagonal Fisher information of a model with its head, by parameter name.

    Args:
        model: a Hugging Face classifier or regression model.
        batches: of model inputs; labels are not read.
        samples: how many rows, one backward pass each.
        seed: of the labels that are drawn from the predictions.
        names: of which parameters; the trainable ones of the backbone when left out.

    Raises:
        ValueError: there is no row, or the model gives no predictions.
    """
    parameters = named_parameters(model, backbone_parameter_names(model) if names is None else names)
    information = {name: torch.zeros_like(value) for name, value in parameters.items()}
    generator = torch.Generator().manual_seed(seed)
    rows, readout = 0, choose_readout(model)
    with evaluating(model):
        for row in _single_rows(batches, model.device, samples):
            with readout:
                outputs = model(**row)
            logits, problem_type = predictions(readout.read(outputs, row), outputs, model.config)
            loss = negative_log_likelihood(logits, draw_labels(logits, problem_type, generator), problem_type)
            gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
            rows += 1
            for name, gradient in zip(parameters, gradients, strict=True):
                if gradient is not None:
                    information[name].add_(gradient.square())
    if not rows:
        raise ValueError("there is no row to estimate the Fisher information on.")
    return {name: value / rows for name, value in information.items()}


def predictions(units: Units, outputs: Mapping[str, Tensor], config: PreTrainedConfig) -> tuple[Tensor, str]:
    """What the labels are drawn from, [N, C], and its problem type: the units' logits, those of every token or pixel
    of another head, or of a backbone the features, the mean of a Gaussian.

    Raises:
        ValueError: the model gives none of them.
    """
    if units.logits is not None:
        # a model of several outputs that declares nothing and has seen no labels is taken for a classifier
        return units.logits, declared_problem_type(config) or SINGLE_LABEL
    if outputs.get("logits") is not None:
        return outputs["logits"].float().flatten(0, -2), SINGLE_LABEL
    if units.features is not None:
        return units.features, REGRESSION
    raise ValueError(f"EWC needs predictions, and a {config.model_type} model without a head gives {list(outputs)}.")


def save_fisher(
    model: nn.Module, batches: Iterable[Mapping[str, Tensor]], folder: str | Path, samples: int = 256, seed: int = 0
) -> None:
    """Estimate the information of a model and keep it beside its weights, as `fisher.safetensors` in its folder."""
    information = estimate_fisher(model, batches, samples, seed)
    save_file({name: value.cpu().contiguous() for name, value in information.items()}, Path(folder) / FISHER_FILE)


def load_fisher(folder: str | Path) -> dict[str, Tensor]:
    """What `save_fisher` kept in a folder. Raises ValueError when there is none."""
    path = Path(folder) / FISHER_FILE
    if not path.is_file():
        raise ValueError(f"{folder} has no {FISHER_FILE}: write it with `save_fisher` where the model was trained.")
    return load_file(path)


def _single_rows(batches: Iterable[Mapping[str, Tensor]], device: torch.device, limit: int):
    remaining = limit
    for batch in batches:
        inputs = {name: value.to(device) for name, value in model_inputs(batch).items()}
        for i in range(min(remaining, len(next(iter(inputs.values()))))):
            remaining -= 1
            yield {name: value[i : i + 1] for name, value in inputs.items()}
        if not remaining:
            return
