"""B-Tuning: a model learns what the best models of a hub expect of each row, each by its own Bayesian linear model.

    loss = E_x mean_c ( f(x) M^T - sum_k pi_k f_k(x) M_k^T )_c^2

f_k(x) [D_k] are the features of frozen teacher k, M_k [C, D_k] the posterior means of LogME's linear model of the
labels on them; f(x) [D] and M [C, D] the same of the model in training, M measured once on its starting features. All
is compared in the space of the labels, so teachers have any architecture and width.

    pi = softmax( (s - mean s) / (T std s) ),   s_k the LogME of teacher k

Paper: You et al., "Ranking and Tuning Pre-trained Models", JMLR 2022, https://huggingface.co/papers/2110.10545; three
teachers as in its released code, and as there the means alone are compared, not the paper's mixture of predictive
Gaussians. The released softmax(s / .1) is all but uniform, for scores of good models differ by hundredths; here T = 1
is in units of the standard deviation of the teachers' scores.

The weight is 1 / mean_c E_x y_c^2 when left out, so that the term is a share of the labels' own size whatever their
number and unit. With C classes that is C: for 100 classes it is 100, the released weight.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM, SINGLE_LABEL, known_rows, problem_type_of
from hf_transfer.functional.evidence import SecondMoments
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.functional.processes import unit_share
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.multi_model.teacher import Taught, model_inputs, on_device


class BTuning(Taught):
    """Squared distance of the model's expected labels from those of frozen teachers.

    Args:
        ranking: folder of a saved ranking, whose best models are the teachers.
        top: how many of them; 3 when left out.
        teacher: in place of a ranking, the teachers: folders, Hub ids or models.
        temperature: T > 0, of the teachers' shares.
        cache: ask teachers once about every row, where rows are not augmented.
        weight: factor of this term in the training loss; when left out, from the labels as above.

    Raises:
        ValueError: a keyword is out of its range; at `build`, there is no ranking or it has fewer models, a teacher
            cannot be loaded or reads other inputs; at `prepare`, the data have no labels.
    """

    paper = "2110.10545"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "labels", "inputs", "row_numbers"})

    def __init__(
        self,
        ranking: str | None = None,
        top: int | None = None,
        teacher: str | PreTrainedModel | Sequence[str | PreTrainedModel] | None = None,
        temperature: float = 1.0,
        cache: bool = True,
        weight: float | None = None,
    ):
        require_positive(temperature=temperature)
        if (ranking is None) == (teacher is None):
            raise ValueError("give either `ranking`, the folder of a saved ranking, or `teacher`, a list of models.")
        if ranking is None and top is not None:
            raise ValueError("`top` chooses from a `ranking`; of the models in `teacher` all are taken.")
        super().__init__(teacher, False, cache, 0.0 if weight is None else weight)
        self.weighs_by_labels = weight is None
        self.ranking, self.top = ranking, 3 if top is None else top
        self.temperature = temperature

    @property
    def weight(self) -> float:
        return 1 / self.label_size.item() if self.weighs_by_labels else self.given_weight

    @weight.setter
    def weight(self, value: float) -> None:
        self.given_weight = value

    def build(self, context: BuildContext) -> None:
        if self.ranking is not None:
            self._sources = tuple(ranked_models(self.ranking, self.top))
        super().build(context)
        # In a tuple, so that the model in training is not registered as this objective's own.
        self._student = (unwrap_peft(context.model).config, choose_readout(context.model))
        widths = [teacher.feature_width for teacher in self.teachers]
        self.register_buffer("means", torch.zeros(context.num_labels, context.feature_dim))
        self.register_buffer("teacher_means", torch.zeros(context.num_labels, sum(widths)))
        self.register_buffer("shares", torch.zeros(len(widths)))
        self.register_buffer("label_size", torch.ones(()))
        self.widths = widths

    @torch.no_grad()
    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """One pass over the labelled rows: posterior means of all models, the shares, and the teachers' answers."""
        moments, rows, kept = None, [], []
        was_training = model.training
        model.eval()
        for batch in on_device(dataloader, self.means.device):
            features, targets, known = self._measured(model, batch)
            moments = moments or [SecondMoments(one.shape[1], targets.shape[1]) for one in features]
            for moment, one in zip(moments, features, strict=True):
                moment.add(one[known], targets[known])
            if self.can_keep(batch, sum(self.widths), dataloader):
                rows.append(batch["row_numbers"])
                kept.append(torch.cat(features[1:], dim=1))
        model.train(was_training)
        self._conclude(moments)
        if kept:
            self.table.fill(torch.cat(rows), self._expected(torch.cat(kept)))

    def _measured(self, model: nn.Module, batch: dict[str, Tensor]) -> tuple[list[Tensor], Tensor, Tensor]:
        """Features of the model and of its teachers, targets [N, C] in float64, and which units have a label."""
        config, readout = self._student
        inputs = model_inputs(batch)
        labels = batch.get("labels")
        if labels is None:
            raise ValueError(f"B-Tuning measures on labelled rows; the batch has only {sorted(batch)}.")
        with readout:
            outputs = model(**inputs)
        units = readout.read(outputs, {**inputs, "labels": labels})
        known = known_rows(units.labels)
        if problem_type_of(config, units.labels) == SINGLE_LABEL:
            targets = F.one_hot(units.labels.clamp(min=0), len(self.means)).double()
        else:
            targets = units.labels.reshape(len(units.labels), -1).double()
        return [units.features, *(teacher(inputs).features for teacher in self.teachers)], targets, known

    def _conclude(self, moments: Sequence[SecondMoments] | None) -> None:
        if moments is None or moments[0].rows == 0:
            raise ValueError("B-Tuning measures on labelled rows, and no training row has a label.")
        evidences = [moment.evidence() for moment in moments]
        means = [torch.zeros(len(self.means), width) for width in (self.means.shape[1], *self.widths)]
        for mean, evidence in zip(means, evidences, strict=True):
            mean[evidence.columns.cpu()] = evidence.posterior_means.float().cpu()
        self.means.copy_(means[0])
        self.teacher_means.copy_(torch.cat(means[1:], dim=1))
        self.label_size.fill_(moments[0].energy.mean().item() / moments[0].rows)
        self.shares.copy_(shares_of([evidence.score for evidence in evidences[1:]], self.temperature))

    def _expected(self, features: Tensor) -> Tensor:
        """The teachers' expected labels [N, C], of their features side by side [N, sum D_k]."""
        weights = self.shares.repeat_interleave(torch.tensor(self.widths, device=self.shares.device))
        return features @ (weights * self.teacher_means).T

    def answers(self, inputs: Mapping[str, Tensor]) -> Tensor:
        return self._expected(torch.cat([teacher(inputs).features for teacher in self.teachers], dim=1))

    def forward(self, view: View) -> Tensor:
        return unit_share(view) * F.mse_loss(view.features @ self.means.T, self.lesson(view))


def shares_of(scores: Sequence[float], temperature: float) -> Tensor:
    """softmax of the scores in units of temperature times their standard deviation, [K]; alike where all are equal."""
    values = torch.tensor(scores, dtype=torch.float64)
    spread = values.std(correction=0)
    return ((values - values.mean()) / (temperature * spread.clamp(min=1e-12))).softmax(dim=0)
