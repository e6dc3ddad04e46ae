"""Distillation: a model learns the softened predictions of one teacher or of several.

    loss = T^2 E_x KL( p(x) || softmax(z(x) / T) ),   p = sum_k w_k softmax(z_k(x) / T)

z are the model's logits, z_k those of the frozen teachers, w_k their weights, which sum to 1. T^2 keeps the size of
the gradient whatever T is. Of a model of several labels the predictions are Bernoulli distributions; of a regression
they are Gaussians of variance T^2, and the loss is half the squared distance from the weighted mean of the teachers'
numbers. The labels' own loss stands beside it; `task_loss_weight: 0` leaves the teachers alone.

Paper: Hinton et al., "Distilling the Knowledge in a Neural Network", 2015, https://huggingface.co/papers/1503.02531.
T = 4 lies in the range that the paper found to work for models of every size (2.5 to 4 for the smallest); it is also
what released comparisons of distillation methods use (Tian et al., https://huggingface.co/papers/1910.10699).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM, declared_problem_type
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.processes import unit_share
from hf_transfer.functional.soft_targets import distillation, mean_logits
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.multi_model.members import match_labels
from hf_transfer.multi_model.teacher import Taught


class Distillation(Taught):
    """Divergence of the model's softened predictions from those of frozen teachers.

    Args:
        teacher: folder or Hub id of a classifier with the model's labels, that model, or a list of such.
        weights: one a teacher, positive; their shares count. All alike when left out.
        temperature: T > 0.
        cache: ask teachers once about every row, where rows are not augmented.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, a teacher cannot be loaded, has other labels, or reads
            other inputs.
    """

    paper = "1503.02531"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "inputs", "row_numbers"})

    def __init__(
        self,
        teacher: str | PreTrainedModel | Sequence[str | PreTrainedModel],
        weights: Sequence[float] | None = None,
        temperature: float = 4.0,
        cache: bool = True,
        weight: float = 1.0,
    ):
        super().__init__(teacher, True, cache, weight)
        require_positive(temperature=temperature)
        weights = [1.0] * len(self._sources) if weights is None else list(weights)
        if len(weights) != len(self._sources) or not all(one > 0 for one in weights):
            raise ValueError(
                f"`weights` should be a positive number for each of the {len(self._sources)} teachers, got {weights}."
            )
        self.temperature = temperature
        self.shares = [one / sum(weights) for one in weights]

    def build(self, context: BuildContext) -> None:
        self.student_config = unwrap_peft(context.model).config
        super().build(context)

    @property
    def problem_type(self) -> str | None:
        """Of the model in training, once its data have been seen."""
        return declared_problem_type(self.student_config)

    def fit_teacher(self, model: PreTrainedModel, name: str, student: PreTrainedModel) -> None:
        super().fit_teacher(model, name, student)
        match_labels(model, name, student)

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        for teacher in self.teachers:
            theirs = declared_problem_type(teacher.model.config)
            if None not in (theirs, self.problem_type) and theirs != self.problem_type:
                raise ValueError(
                    f"{teacher.name} was trained for {theirs} and the model in training is of {self.problem_type}."
                )
        super().prepare(model, dataloader)

    def answers(self, inputs: Mapping[str, Tensor]) -> Tensor:
        logits = [teacher(inputs).logits for teacher in self.teachers]
        return mean_logits(logits, torch.tensor(self.shares), self.temperature, self.problem_type)

    def forward(self, view: View) -> Tensor:
        targets = self.lesson(view)
        if targets.shape != view.logits.shape:
            raise ValueError(
                f"the teachers give {list(targets.shape)} outputs for this batch and the model in training "
                f"{list(view.logits.shape)}: they have to predict for the same units."
            )
        loss = distillation(view.logits, targets, self.temperature, self.problem_type)
        return unit_share(view) * self.temperature**2 * loss
