"""Adversarial discriminative domain adaptation: a target encoder learns to look like the frozen source encoder.

    source        the model descends          loss = CE_source, for the first `source_share` of the training
    discriminate  D descends                  loss = 1/2 E_source[-log D(f_s)] + 1/2 E_target[-log(1 - D(f_t))]
    confuse       the target encoder descends loss = weight * E_target[-log D(f_t)]   (inverted labels)

f_s are features of the source-trained model, which is frozen after the first share; f_t those of the model in
training, which starts from it and keeps its head. With `source_share=0` the model at the start is the source-trained
one.

Paper: Tzeng et al., "Adversarial Discriminative Domain Adaptation", CVPR 2017,
https://huggingface.co/papers/1702.05464. A discriminator with two hidden layers of 500 as in its experiments on
digits, without batch normalisation, which would tell it the domain of a batch of target rows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import AlternatingObjective, BuildContext, Phase, View
from hf_transfer.core.readout import read_units
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.domain_adaptation.domain_discriminator import domain_discrimination_loss
from hf_transfer.domain_adaptation.parameter_groups import encoder_parameters
from hf_transfer.domain_adaptation.two_domains import require_both_domains
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all_uneven


class PlainDiscriminator(nn.Sequential):
    """A perceptron with two hidden layers and one output, the logit of "this row is a source row".

    Args:
        in_features: width of its input.
        hidden_size: width of both hidden layers.

    Shape: [B, in_features] -> [B].
    """

    def __init__(self, in_features: int, hidden_size: int):
        hidden = (nn.Linear(in_features, hidden_size), nn.ReLU(), nn.Linear(hidden_size, hidden_size), nn.ReLU())
        super().__init__(*hidden, nn.Linear(hidden_size, 1), nn.Flatten(start_dim=0))


class ADDA(AlternatingObjective):
    """Adversarial discriminative domain adaptation on the features.

    Args:
        hidden_size: width of the discriminator's two hidden layers.
        source_share: share of the training, in [0, 1), in which the source model is trained first.
        weight: factor of the target encoder's loss.

    Raises:
        ValueError: a keyword is out of its range.
    """

    paper = "1702.05464"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "inputs", "domain"})

    def __init__(self, hidden_size: int = 500, source_share: float = 0.5, weight: float = 1.0):
        super().__init__(weight)
        require_positive(hidden_size=hidden_size)
        require_share(source_share=source_share)
        self.hidden_size = hidden_size
        self.source_share = source_share

    def build(self, context: BuildContext) -> None:
        self.discriminator = PlainDiscriminator(context.feature_dim, self.hidden_size)
        self.source_model = FrozenCopy(context.model)
        self._readout = context.readout_of(self.source_model.module)

    def train(self, mode: bool = True) -> ADDA:
        super().train(mode)
        if hasattr(self, "source_model"):
            # The target rows' features have dropout's zeros: source rows without them would be told apart by these.
            for module in self.source_model.modules():
                if isinstance(module, nn.Dropout):
                    module.train(mode)
        return self

    def phases(self, progress: float) -> Sequence[Phase]:
        if progress < self.source_share:
            return (Phase("source", lambda model: model.parameters(), joins_task=True),)
        return (
            Phase("discriminate", lambda model: self.discriminator.parameters(), self.discrimination),
            Phase("confuse", encoder_parameters, self.confusion),
        )

    @torch.no_grad()
    def source_features(self, source: View) -> Tensor:
        """[N, D] of the frozen source model."""
        return read_units(self._readout, self.source_model, source.inputs).features

    def discrimination(self, view: View) -> Tensor:
        """The discriminator's loss."""
        require_both_domains(view)
        source, target = view.source, view.target
        domain_logits = self.discriminator(torch.cat([self.source_features(source), target.features]))
        domain = torch.cat([source.domain, target.domain])
        # of all processes: each may have another number of tokens
        return domain_discrimination_loss(from_all_uneven(domain_logits), from_all_uneven(domain))

    def confusion(self, view: View) -> Tensor:
        """The target encoder's loss: target rows should pass for source rows."""
        require_both_domains(view)
        domain_logits = from_all_uneven(self.discriminator(view.target.features))
        return self.weight * F.softplus(-domain_logits).mean()

    def after_step(self, model: nn.Module) -> None:
        if self.phase is not None and self.phase.joins_task:
            self.source_model.update(model, momentum=0.0)
