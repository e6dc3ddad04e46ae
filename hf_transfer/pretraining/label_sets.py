"""Several label sets at once: a linear head on the features for each further label column of the training rows.

    loss = sum_k loss_k(W_k f(x) + b_k, y_k)

f is the model below its own head, whose task, if it has one, is trained beside. loss_k is that of the problem type of
the set, over the rows whose label is known: cross entropy of classes, mean squared error of numbers, binary cross
entropy of labels that may hold at once. With two domains the labels of source rows alone are read. Heads start as
linear layers of torch do; they are saved with the objectives and are no part of the finished model.

Paper: Ruder, "An Overview of Multi-Task Learning in Deep Neural Networks", 2017,
https://huggingface.co/papers/1706.05098: shared layers with a head for each task (Caruana 1993), of equal weight.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from hf_transfer.core.label_sets import label_sets_of
from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM, known_rows, task_loss
from hf_transfer.functional.processes import share_of_all


class LabelSets(Objective):
    """One head for each further set of labels. The log has the loss of each as `loss_label_sets_<column>`.

    Args:
        columns: what each column holds: a number of classes, `regression` for one number, or a problem type and its
            number of outputs: {digit: 10, angle: regression, tags: {multi_label_classification: 5}}.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: no columns, something else said of one, or units that are parts of rows.
    """

    paper = "1706.05098"
    tasks = ANY_PROBLEM
    needs = frozenset({"features"})

    def __init__(self, columns: Mapping[str, Any], weight: float = 1.0):
        super().__init__(weight)
        self.label_sets = label_sets_of(columns)
        self.columns = ", ".join(
            f"{name} ({one.problem_type}, {one.outputs})" for name, one in self.label_sets.items()
        )

    def build(self, context: BuildContext) -> None:
        context.require_rows("label_sets")
        # in a list, since a column may have any name
        self.heads = nn.ModuleList(nn.Linear(context.feature_dim, one.outputs) for one in self.label_sets.values())

    def forward(self, view: View) -> Tensor:
        source = view.source
        total, self.parts = no_loss(view), {}
        for (column, one), head in zip(self.label_sets.items(), self.heads, strict=True):
            labels = source.label_sets[column]
            share = share_of_all(known_rows(labels).sum())
            loss = share * task_loss(head(source.features), labels, one.problem_type)
            total, self.parts[column] = total + loss, loss.detach()
        return total
