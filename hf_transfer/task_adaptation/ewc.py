"""Elastic weight consolidation: weights that mattered for what the model knew are held near their start.

    loss = strength/2 sum_i F_i (w_i - w0_i)^2,   F_i = E_x E_{y ~ p(y|x)} (d log p(y|x) / d w_i)^2 at w0

F is the diagonal Fisher information of the starting model, with y drawn from the model's own predictions, so no
label is read. It should be measured on the data the model comes from and with the head it knew them by: give that
data as `source`. Without it F is measured on the training set.

Paper: Kirkpatrick et al., "Overcoming catastrophic forgetting in neural networks", PNAS 2017,
https://huggingface.co/papers/1612.00796. Strength 400 as in its Atari runs; it depends on the scale of F, so tune it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.model_anatomy import backbone_parameter_names
from hf_transfer.objective import Objective, View, no_loss
from hf_transfer.task_adaptation.first_pass import evaluating, model_inputs
from hf_transfer.task_adaptation.starting_point import NamedTensors, named_parameters


class EWC(Objective):
    """Fisher-weighted squared distance of the backbone from its starting point.

    Args:
        strength: lambda, >= 0.
        samples: how many rows the Fisher information is estimated on, one backward pass each.
        source: batches of model inputs to estimate it on, for example the pre-training data's dataloader.
        seed: of the drawn labels.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `strength` is negative, or `samples` is not positive.
    """

    paper = "1612.00796"

    def __init__(
        self,
        strength: float = 400.0,
        samples: int = 256,
        source: Iterable[Mapping[str, Tensor]] | None = None,
        seed: int = 0,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(strength=strength)
        require_positive(samples=samples)
        self.strength = strength
        self.samples = samples
        self.source = source
        self.seed = seed

    def build(self, model: nn.Module, feature_dim: int, num_labels: int) -> None:
        parameters = named_parameters(model, backbone_parameter_names(model))
        self.start = NamedTensors(parameters)
        self.fisher = NamedTensors({name: torch.zeros_like(value) for name, value in parameters.items()})

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Estimate F on the first `samples` rows of `source`, or of the training set."""
        parameters = named_parameters(model, self.fisher.names)
        generator = torch.Generator().manual_seed(self.seed)
        rows = 0
        with evaluating(model):
            for row in _single_rows(self.source or dataloader, model.device, self.samples):
                loss = _sampled_loss(model(**row).logits, generator, model.config.problem_type == "regression")
                gradients = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
                rows += 1
                for name, gradient in zip(parameters, gradients):
                    if gradient is not None:
                        self.fisher[name].add_(gradient.square())
        if not rows:
            raise ValueError("EWC has no row to estimate the Fisher information on: `source` is empty.")
        for name in parameters:
            self.fisher[name].div_(rows)

    def forward(self, view: View) -> Tensor:
        loss = no_loss(view)
        for name, parameter in named_parameters(view.model, self.start.names).items():
            loss = loss + (self.fisher[name] * (parameter - self.start[name]).square()).sum()
        return self.strength / 2 * loss


def _single_rows(batches: Iterable[Mapping[str, Tensor]], device: torch.device, limit: int):
    remaining = limit
    for batch in batches:
        inputs = {name: value.to(device) for name, value in model_inputs(batch).items()}
        for i in range(min(remaining, len(next(iter(inputs.values()))))):
            remaining -= 1
            yield {name: value[i : i + 1] for name, value in inputs.items()}
        if not remaining:
            return


def _sampled_loss(logits: Tensor, generator: torch.Generator, is_regression: bool) -> Tensor:
    """-log p(y|x) of a y drawn from p; a regression model stands for a Gaussian of unit variance."""
    logits = logits.float()
    if is_regression or logits.shape[1] == 1:
        noise = torch.randn(logits.shape, generator=generator).to(logits.device)
        return 0.5 * (logits - (logits.detach() + noise)).square().sum()
    drawn = torch.multinomial(logits.detach().softmax(dim=1).cpu(), 1, generator=generator).squeeze(1)
    return F.cross_entropy(logits, drawn.to(logits.device), reduction="sum")
