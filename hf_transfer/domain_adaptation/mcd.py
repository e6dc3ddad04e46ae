"""Maximum classifier discrepancy: two heads look for target rows far from the source, the encoder brings them back.

    d(t) = (1/C) sum_c |softmax(F1(f_t))_c - softmax(F2(f_t))_c|,   discrepancy = mean over target rows
    A  classify  encoder and heads descend  loss = CE_source(F1) + CE_source(F2)
    B  separate  the heads descend          loss = CE_source(F1) + CE_source(F2) - weight * discrepancy
    C  unite     the encoder descends       loss = weight * discrepancy,   num_k times

F1 is the model's own last linear head, F2 a second one that starts from other random weights and is not saved with
the model. All steps are taken on the same batch.

Paper: Saito et al., "Maximum Classifier Discrepancy for Unsupervised Domain Adaptation", CVPR 2018,
https://huggingface.co/papers/1712.02560. num_k 4 as in its released code.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn

from hf_transfer.core.objective import AlternatingObjective, BuildContext, Phase, View
from hf_transfer.core.task_loss import SINGLE_LABEL, known_rows, task_loss
from hf_transfer.domain_adaptation.parameter_groups import encoder_parameters, head_parameters
from hf_transfer.domain_adaptation.two_domains import require_both_domains
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import has_several, share_of_all, unit_share


def classifier_discrepancy(logits: Tensor, other_logits: Tensor) -> Tensor:
    """Mean absolute difference of two classifiers' probabilities; a scalar in [0, 2 / C].

    Args:
        logits, other_logits: [B, C].
    """
    return (logits.softmax(dim=1) - other_logits.softmax(dim=1)).abs().mean()


class MCD(AlternatingObjective):
    """Maximum classifier discrepancy with a second linear head on the features.

    Args:
        num_k: steps of the encoder in every batch.
        source_share: share of the training, in [0, 1), in which only phase A runs; 0 in the paper.
        weight: of the discrepancy.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model has fewer than two classes.
    """

    paper = "1712.02560"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"features", "logits", "labels", "domain"})

    def __init__(self, num_k: int = 4, source_share: float = 0.0, weight: float = 1.0):
        super().__init__(weight)
        require_positive(num_k=num_k)
        require_share(source_share=source_share)
        self.num_k = num_k
        self.source_share = source_share

    def build(self, context: BuildContext) -> None:
        context.require_classes(2, "MCD")
        self.second_head = nn.Linear(context.feature_dim, context.num_labels)

    def phases(self, progress: float) -> Sequence[Phase]:
        classify = Phase("classify", self._everything, self.second_classification, joins_task=True)
        separate = Phase("separate", self._heads, self.separation, joins_task=True)
        unite = Phase("unite", encoder_parameters, self.discrepancy, steps=self.num_k)
        return (classify,) if progress < self.source_share else (classify, separate, unite)

    def _heads(self, model: nn.Module) -> list[nn.Parameter]:
        return [*head_parameters(model), *self.second_head.parameters()]

    def _everything(self, model: nn.Module) -> list[nn.Parameter]:
        return [*model.parameters(), *self.second_head.parameters()]

    def second_classification(self, view: View) -> Tensor:
        """Mean cross entropy of the second head over the rows with a label."""
        share = share_of_all(known_rows(view.labels).sum()) if has_several() else 1.0
        return share * task_loss(self.second_head(view.features), view.labels, SINGLE_LABEL, view.label_smoothing)

    def separation(self, view: View) -> Tensor:
        """The second head's part of phase B; the model's own head has its cross entropy in the task loss."""
        return self.second_classification(view) - self.discrepancy(view)

    def discrepancy(self, view: View) -> Tensor:
        """The weighted discrepancy on the target rows."""
        require_both_domains(view)
        target = view.target
        gap = classifier_discrepancy(target.logits, self.second_head(target.features))
        return self.weight * unit_share(target) * gap
