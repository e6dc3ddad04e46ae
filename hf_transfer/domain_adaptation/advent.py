"""ADVENT: maps of weighted self-information by which a discriminator cannot tell target pictures from source pictures.

    I = -p log p  [C, h, w],   p = softmax(logits) of every pixel
    loss = 1/2 E_source[-log D(I)] + 1/2 E_target[-log(1 - D(R(I)))] + min_entropy E_target[mean sum_c I_c] / log C

The discriminator D descends the first two terms. Source maps are detached; target maps ascend through the reversal R,
with the coefficient `reversal`, so that a target picture is segmented with the certainty of a source picture. The last
term is the direct form, MinEnt. Maps smaller than D needs are enlarged.

Paper: Vu et al., "ADVENT: Adversarial Entropy Minimization for Domain Adaptation in Semantic Segmentation", CVPR 2019,
https://huggingface.co/papers/1811.12833: the factor .001 of the adversarial term and D's widths as there. There the
segmenter descends -log D(I) of target maps in place of the reversal, and D has one more convolution of stride 2.
"""

from __future__ import annotations

import math
from itertools import pairwise

import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import SOURCE, TARGET, BuildContext, Objective, View
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional import gradient_reversal
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.modeling.readouts import Dense


def self_information(logits: Tensor) -> Tensor:
    """-p log p of every class and pixel, [B, C, h, w] as the logits."""
    return -logits.softmax(dim=1) * logits.log_softmax(dim=1)


class MapDiscriminator(nn.Sequential):
    """Convolutions of stride 2 with leaky ReLUs, and one output for every place that is left.

    Args:
        classes: C.
        width: channels of the first convolution; they double with each.
        depth: number of convolutions.

    Shape: [B, C, H, W] with sides of at least 2^depth -> [B, 1, H / 2^depth, W / 2^depth], logits of "source".
    """

    def __init__(self, classes: int, width: int, depth: int):
        widths = [classes, *(width * 2**place for place in range(depth))]
        layers: list[nn.Module] = []
        for before, after in pairwise(widths):
            layers += [nn.Conv2d(before, after, 4, stride=2, padding=1), nn.LeakyReLU(0.2)]
        super().__init__(*layers, nn.Conv2d(widths[-1], 1, 1))
        self.smallest = 2**depth

    def forward(self, maps: Tensor) -> Tensor:
        sides = [max(side, self.smallest) for side in maps.shape[-2:]]
        if sides != list(maps.shape[-2:]):
            maps = F.interpolate(maps, size=sides, mode="bilinear", align_corners=False)
        return super().forward(maps)


class ADVENT(Objective):
    """Adversarial alignment of self-information maps, and entropy minimisation, of a segmentation model.

    Args:
        reversal: factor of the gradient that reaches the model from the discriminator.
        min_entropy: factor of the direct entropy term; the paper's MinEnt has .001 of it and no discriminator.
        width: channels of the discriminator's first layer.
        depth: number of its strided convolutions.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model gives no maps.
    """

    paper = "1811.12833"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"outputs", "domain"})
    reads_outputs = frozenset({"logits"})

    def __init__(
        self,
        reversal: float = 0.001,
        min_entropy: float = 0.0,
        width: int = 64,
        depth: int = 4,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(reversal=reversal, min_entropy=min_entropy)
        require_positive(width=width, depth=depth)
        self.reversal = reversal
        self.min_entropy = min_entropy
        self.width = width
        self.depth = depth

    def build(self, context: BuildContext) -> None:
        require_maps(context, "ADVENT")
        context.require_classes(2, "ADVENT")
        self.discriminator = MapDiscriminator(context.num_labels, self.width, self.depth)

    def forward(self, view: View) -> Tensor:
        maps = self_information(view.outputs["logits"].float())
        if not has_both_domains(view):
            return maps.sum() * 0.0
        domain = domain_of_rows(view, len(maps))
        source, target = maps[domain == SOURCE], maps[domain == TARGET]
        known = self.discriminator(source.detach())
        fooled = self.discriminator(gradient_reversal(target, self.reversal))
        loss = 0.5 * (F.softplus(-known).mean() + F.softplus(fooled).mean())
        return loss + self.min_entropy * target.sum(dim=1).mean() / math.log(maps.shape[1])


def require_maps(context: BuildContext, name: str) -> None:
    """Raises ValueError where the model's units are no pixels of maps."""
    if context.readout is not None and not isinstance(context.readout, Dense):
        raise ValueError(
            f"{name} needs images with a map of classes, and the readout `{type(context.readout).__name__}` gives "
            "none: it is for semantic segmentation (AutoModelForSemanticSegmentation)."
        )


def domain_of_rows(view: View, rows: int) -> Tensor:
    """The domain of every picture, [B], from that of its pixels."""
    return view.domain.reshape(rows, -1)[:, 0]
