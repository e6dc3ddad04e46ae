"""Co-Tuning: the pre-trained head is tuned along, towards the source classes that each target class looks like.

    loss = E_(x,y) [ - sum_s p(s | y) log softmax(head_s(f(x)))_s ]

p(source class | target class) is measured before training: the mean of the starting model's source predictions,
softened by a temperature, over the training rows of the target class (the paper's direct approach). head_s starts as
the pre-trained head.

Paper: You et al., "Co-Tuning for Transfer Learning", NeurIPS 2020,
https://proceedings.neurips.cc/paper/2020/hash/c8067ad1937f728f51288b3eb986afaa-Abstract.html. Weight 2.3 as in its
released code. The paper calibrates the pre-trained head on held-out source data; `temperature` takes the result.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import IGNORED_LABEL, BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.anatomy import HeadInput
from hf_transfer.task_adaptation.first_pass import evaluating, labelled_batches
from hf_transfer.task_adaptation.source_head import copy_source_head


class CoTuning(Objective):
    """Cross entropy of the pre-trained head against the category relation.

    Args:
        source_head: the pre-trained head, or the folder or Hub name of the pre-trained model.
        temperature: calibrates the pre-trained predictions from which the relation is measured.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `temperature` is not positive; at `build`, the head does not fit the features or the model is no
            classifier; at `prepare`, a class has no training row.
    """

    paper = "https://proceedings.neurips.cc/paper/2020/hash/c8067ad1937f728f51288b3eb986afaa-Abstract.html"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "labels", "global_batch"})

    def __init__(self, source_head: nn.Linear | str, temperature: float = 1.0, weight: float = 2.3):
        super().__init__(weight)
        require_positive(temperature=temperature)
        self.temperature = temperature
        # In a tuple, so that the module given is not registered as this objective's own.
        self._given_head = (source_head,)

    def build(self, context: BuildContext) -> None:
        context.require_rows("Co-Tuning")
        context.require_classes(2, "Co-Tuning")
        (given,) = self._given_head
        self.source_head = copy_source_head(given, context.feature_dim)
        self.register_buffer("relation", torch.zeros(context.num_labels, self.source_head.out_features))

    @torch.no_grad()
    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure p(source class | target class), [C, C_source], on the labelled training rows."""
        sums, counts = torch.zeros_like(self.relation), torch.zeros_like(self.relation[:, 0])
        watched = HeadInput(model)
        with evaluating(model):
            for inputs, labels in labelled_batches(dataloader, self.relation.device):
                with watched:
                    logits = model(**inputs).logits
                features = watched.take(logits, inputs.get("attention_mask")).float()
                predictions = (self.source_head(features) / self.temperature).softmax(dim=1)
                sums.index_add_(0, labels, predictions)
                counts.index_add_(0, labels, torch.ones_like(predictions[:, 0]))
        absent = (counts == 0).nonzero().flatten().tolist()
        if absent:
            raise ValueError(
                f"Co-Tuning relates every class to the source classes, and classes {absent} have no training row."
            )
        self.relation.copy_(sums / counts.unsqueeze(1))

    def forward(self, view: View) -> Tensor:
        known = view.labels != IGNORED_LABEL
        if not known.any():
            return no_loss(view)
        log_p = self.source_head(view.features[known]).log_softmax(dim=1)
        return -(self.relation[view.labels[known]] * log_p).sum(dim=1).mean()
