"""Distillation of features: projections of a model's features learn to be the features of one teacher or of several.

    loss = (1/K) sum_k E_x || W_k f(x) - f_k(x) ||^2 / D_k

f(x) are the model's features [D], f_k(x) those of frozen teacher k [D_k], of any architecture and width, W_k a linear
map [D_k, D] that is trained along. A classifier's features are the input of its last linear layer, a backbone's its
pooled output. Dividing by D_k keeps a wide teacher from outweighing a narrow one.

Paper: Romero et al., "FitNets: Hints for Thin Deep Nets", ICLR 2015, https://huggingface.co/papers/1412.6550, there
with one teacher and a hidden layer; with several teachers it is the distillation that B-Tuning is compared with (You
et al., JMLR 2022, https://huggingface.co/papers/2110.10545). Weight 1: with D_k divided out, features of unit variance
give a loss of about 1 at the start.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.processes import unit_share
from hf_transfer.multi_model.teacher import Taught


class FeatureDistillation(Taught):
    """Mean squared error of projected features against those of frozen teachers.

    Args:
        teacher: folder or Hub id of a pre-trained model, that model, or a list of such.
        cache: ask teachers once about every row, where rows are not augmented.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: at `build`, a teacher cannot be loaded, reads other inputs, or has no features to read.
    """

    paper = "1412.6550"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "inputs", "row_numbers"})

    def __init__(
        self,
        teacher: str | PreTrainedModel | Sequence[str | PreTrainedModel],
        cache: bool = True,
        weight: float = 1.0,
    ):
        super().__init__(teacher, False, cache, weight)

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.widths = [teacher.feature_width for teacher in self.teachers]
        self.projections = nn.ModuleList(nn.Linear(context.feature_dim, width, bias=False) for width in self.widths)

    def answers(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return torch.cat([teacher(inputs).features for teacher in self.teachers], dim=1)

    def forward(self, view: View) -> Tensor:
        targets = self.lesson(view).split(self.widths, dim=1)
        pairs = zip(self.projections, targets, strict=True)
        losses = [nn.functional.mse_loss(project(view.features), target) for project, target in pairs]
        return unit_share(view) * torch.stack(losses).mean()
