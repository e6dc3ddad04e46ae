"""CyCADA: cycle-consistent translation that keeps the classes, and adversarial adaptation of the classifier.

    source        the model descends       loss = CE(s, y), for the first `source_share`; then f_S is its frozen copy
    translate     G_st, G_ts descend       loss = CycleGAN's + semantic [CE(f_S(G_st s), c(s)) + CE(f_S(G_ts t), c(t))]
    discriminate_images  D_s, D_t descend  CycleGAN's loss
    discriminate  D descends               loss = 1/2 E_s[-log D(f_S(G_st s))] + 1/2 E_t[-log(1 - D(f(t)))]
    task          the model f descends     loss = CE(s, y) + weight * CE(G_st s, y) + feature * E_t[-log D(f(t))]

c(x) = argmax f_S(x). f and f_S give D their logits, as in the released code for digits. D and the last two terms of
the task start at `starts_at`.

Paper: Hoffman et al., "CyCADA: Cycle-Consistent Adversarial Domain Adaptation", ICML 2018,
https://huggingface.co/papers/1711.03213. All weights 1 as in its equation 5; CycleGAN's are CycleGAN's, without the
identity loss. The paper's classifier reads no untranslated source images; here the task loss goes on.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Phase, View, no_loss
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.adda import PlainDiscriminator
from hf_transfer.domain_adaptation.cyclegan import CycleGAN, images_of
from hf_transfer.domain_adaptation.domain_discriminator import domain_discrimination_loss
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive, require_share


class CyCADA(CycleGAN):
    """Cycle-consistent adversarial domain adaptation of an image classifier.

    Args:
        semantic_weight: of the semantic consistency.
        feature_weight: of the classifier's adversarial loss.
        hidden_size: width of the discriminator of logits.
        source_share: share of the training, in [0, 1), in which only the source model is trained; 0 takes the model
            as it is before training for it.
        cycle_weight, identity_weight, buffer_size, width, blocks, image_size, starts_at, weight: as CycleGAN's.

    Raises:
        ValueError: as CycleGAN.
    """

    paper = "1711.03213"
    tasks = frozenset({SINGLE_LABEL})

    def __init__(
        self,
        semantic_weight: float = 1.0,
        feature_weight: float = 1.0,
        hidden_size: int = 500,
        source_share: float = 0.25,
        cycle_weight: float = 10.0,
        identity_weight: float = 0.0,
        buffer_size: int = 50,
        width: int = 64,
        blocks: int = 6,
        image_size: int | None = None,
        starts_at: float = 0.5,
        weight: float = 1.0,
    ):
        super().__init__(cycle_weight, identity_weight, buffer_size, width, blocks, image_size, starts_at, weight)
        require_non_negative(semantic_weight=semantic_weight, feature_weight=feature_weight)
        require_positive(hidden_size=hidden_size)
        require_share(source_share=source_share)
        self.semantic_weight = semantic_weight
        self.feature_weight = feature_weight
        self.hidden_size = hidden_size
        self.source_share = source_share

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.discriminator = PlainDiscriminator(context.num_labels, self.hidden_size)
        self.source_model = FrozenCopy(context.model)

    def phases(self, progress: float) -> Sequence[Phase]:
        if progress < self.source_share:
            return (Phase("source", lambda model: model.parameters(), joins_task=True),)
        translate, discriminate_images, task = super().phases(progress)
        if progress < self.starts_at:
            return translate, discriminate_images, task
        discriminate = Phase("discriminate", lambda model: self.discriminator.parameters(), self.discrimination)
        return translate, discriminate_images, discriminate, task

    def source_logits(self, pixels: Tensor) -> Tensor:
        """[B, C] of the frozen source model; gradients reach the images."""
        return self.source_model(pixel_values=pixels).logits.float()

    def translation(self, view: View) -> Tensor:
        return super().translation(view) + self.semantic_weight * self.semantic_consistency(*images_of(view))

    def semantic_consistency(self, source: Tensor, target: Tensor) -> Tensor:
        """Cross entropy of the source model on translations against its own classes of the originals."""
        with torch.no_grad():
            classes = self.source_logits(torch.cat([source, target])).argmax(dim=1)
        as_target = self.source_logits(self.to_target(source))
        as_source = self.source_logits(self.to_source(target))
        kept = F.cross_entropy(as_target, classes[: len(source)])
        return kept + F.cross_entropy(as_source, classes[len(source) :])

    def discrimination(self, view: View) -> Tensor:
        """What the discriminator of logits descends."""
        source, target = images_of(view)
        with torch.no_grad():
            translated = self.source_logits(self.to_target(source))
        logits = torch.cat([translated, view.target.logits])
        domain = torch.cat([view.domain.new_full((len(rows),), d) for rows, d in ((source, SOURCE), (target, TARGET))])
        return domain_discrimination_loss(self.discriminator(logits), domain)

    def translated_task(self, view: View) -> Tensor:
        if view.progress < self.starts_at:
            return no_loss(view)
        fooling = F.softplus(-self.discriminator(view.target.logits)).mean()
        return super().translated_task(view) + self.feature_weight * fooling

    def after_step(self, model: nn.Module) -> None:
        if self.phase is not None and self.phase.name == "source":
            self.source_model.update(model, momentum=0.0)
