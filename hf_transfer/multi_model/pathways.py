"""How a Hub-Pathway is made of a model and checkpoints, and the two losses that train its choice.

    loss = l_1 ( log m - H(p) ) + l_2 sum_i mean_{x: i runs} CE( h_i(f_i(x)), y ),   p = mean_x w(x)

The first term is exploration: the entropy of the mean weights of the batch, of all processes, is asked to be high, so
that every model is tried; it is 0 where all are used alike. The second is exploitation: each model's own head h_i is
trained on the labelled rows that chose the model. CE is the loss of the problem type.

Paper: Shu et al., "Hub-Pathway: Transfer Learning from A Hub of Pre-trained Models", NeurIPS 2022,
https://huggingface.co/papers/2206.03726. There is no released code, and its factors are not known to us: l_1 = .1 and
l_2 = 1 are ours, to be chosen by validation.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
import transformers
from torch import Tensor, nn
from transformers import AutoConfig, PreTrainedModel

from hf_transfer.core.converter import converts
from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.core.task_loss import ANY_PROBLEM, known_rows, problem_type_of_outputs, row_losses
from hf_transfer.functional.keyword_checks import require_non_negative
from hf_transfer.functional.processes import from_all, share_of_all
from hf_transfer.modeling.anatomy import head_in_use, unwrap_peft
from hf_transfer.modeling.loading import check_complete, quiet_loading
from hf_transfer.models.revisions import at_revision
from hf_transfer.multi_model.composite import ENDINGS
from hf_transfer.multi_model.hub_pathway import HubPathway, HubPathwayConfig
from hf_transfer.multi_model.members import check_finite, check_inputs, check_processors, told_when_unloadable


class Pathways(Objective):
    """Exploration and exploitation of a Hub-Pathway.

    Args:
        exploration: l_1 >= 0.
        exploitation: l_2 >= 0.
        weight: factor of both in the training loss.

    Raises:
        ValueError: a factor is negative; at `build`, the model is no Hub-Pathway.
    """

    paper = "2206.03726"
    tasks = ANY_PROBLEM
    needs = frozenset({"outputs", "labels"})

    def __init__(self, exploration: float = 0.1, exploitation: float = 1.0, weight: float = 1.0):
        super().__init__(weight)
        require_non_negative(exploration=exploration, exploitation=exploitation)
        self.exploration = exploration
        self.exploitation = exploitation

    def build(self, context: BuildContext) -> None:
        model = unwrap_peft(context.model)
        if model.config.model_type != HubPathwayConfig.model_type:
            raise ValueError(
                f"`pathways` trains the choice among the models of a hub, and this is a {type(model).__name__}: name "
                "the hub by `converters: {hub_pathway: {checkpoints: [FOLDER, ...]}}`."
            )

    def forward(self, view: View) -> Tensor:
        outputs = view.outputs
        explored = exploration_loss(outputs["weights"].float())
        exploited = exploitation_loss(
            outputs["member_logits"].float(), outputs["active"], view.labels, view.problem_type
        )
        return self.exploration * explored + self.exploitation * exploited


def exploration_loss(weights: Tensor) -> Tensor:
    """log m less the entropy of the mean over the rows of weights [B, m], of all processes; a scalar, at least 0."""
    share = from_all(weights.mean(dim=0, keepdim=True), differentiable=True).mean(dim=0)
    return math.log(len(share)) + torch.xlogy(share, share).sum()


def exploitation_loss(logits: Tensor, active: Tensor, labels: Tensor, problem_type: str | None) -> Tensor:
    """Sum over the models of the mean loss of their own heads on the labelled rows that chose them; a scalar.

    Args:
        logits: [B, m, C].
        active: [B, m], 1 where a model ran.
        labels: [B] or [B, C].
        problem_type: told from the labels where it is None.
    """
    known = known_rows(labels)
    total = logits.sum() * 0.0
    for index in range(logits.shape[1]):
        own = logits[:, index]
        kind = problem_type or problem_type_of_outputs(own, labels)
        taught = (active[:, index] > 0) & known
        mean = row_losses(own, labels, kind)[taught].sum() / taught.sum().clamp(min=1)
        total = total + share_of_all(taught.sum()) * mean
    return total


@converts()
def convert(
    model: nn.Module, *, checkpoints: Sequence[str], top: int = 2, generator_width: int = 32
) -> PreTrainedModel:
    """A Hub-Pathway of a model and of checkpoints, of any architectures.

    Args:
        model: a classifier or regression, itself the first member.
        checkpoints: folders or Hub ids of the others, with any head; they get heads for the model's labels.
        top: k, how many models run on a row.
        generator_width: channels of the network that chooses.

    Raises:
        ValueError: no checkpoint, one that cannot be loaded or reads other inputs, or more to run than there are.
    """
    if isinstance(checkpoints, str) or not checkpoints:
        raise ValueError(f"`checkpoints` should be a list of at least one folder or Hub id, got {checkpoints!r}.")
    first = unwrap_peft(model)
    members = [first]
    for source in checkpoints:
        members.append(with_labels_of(first, source))
        check_inputs(members[-1], f"`{source}`", first)
    check_processors(first, checkpoints)
    kind = first.config.problem_type
    for member in members:
        member.config.problem_type = kind
    return HubPathway.of(members, top, generator_width)


convert.paper = "2206.03726"


def with_labels_of(first: PreTrainedModel, source: str) -> PreTrainedModel:
    """A checkpoint with a head for the labels of another model; its backbone has to be whole.

    Raises:
        ValueError: it cannot be loaded, or lacks weights of its backbone.
    """
    ending = next((end for end in ENDINGS if type(first).__name__.endswith(end)), None)
    if ending is None:
        raise ValueError(f"a hub is made of classifiers of images or of texts, and this is a {type(first).__name__}.")
    loader = getattr(transformers, f"AutoModel{ending}")
    labels = {"id2label": dict(first.config.id2label), "label2id": dict(first.config.label2id)}
    with told_when_unloadable(source, "checkpoints"):
        folder, stored = at_revision(source)
        AutoConfig.from_pretrained(folder, **stored)
        options = {"ignore_mismatched_sizes": True, "output_loading_info": True, "dtype": "float32", **stored}
        with quiet_loading():
            model, report = loader.from_pretrained(folder, **labels, **options)
        head = {id(parameter) for parameter in head_in_use(model).parameters()}
        names = {name for name, parameter in model.named_parameters() if id(parameter) in head}
        backbone = f"{model.base_model_prefix}."
        check_complete(model, [key for key in report["missing_keys"] if key not in names and key.startswith(backbone)])
        check_finite(model)
    return model
