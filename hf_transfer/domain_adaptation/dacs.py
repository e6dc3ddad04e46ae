"""DACS: self-training on target pictures into which classes of source pictures are pasted.

    x_mix = M x_s + (1 - M) x_t,   y_mix = M y_s + (1 - M) argmax teacher(x_t)
    loss = mean_pixels q CE(model(x_mix), y_mix),   q = 1 where M, else the share of x_t with max p > threshold
    teacher <- m teacher + (1 - m) model,   m = min(1 - 1 / (t + 1), momentum) after t steps

M holds the pixels of a random half of the classes of x_s. Labels and M live on the grid of the last layer's logits; M
is enlarged to the pictures. Every target picture is mixed with one source picture of its batch.

Papers: Tranheden et al., "DACS: Domain Adaptation via Cross-domain Mixed Sampling", WACV 2021,
https://huggingface.co/papers/2007.08702 (threshold .968, momentum .99); DAFormer trains so too, with momentum .999,
https://huggingface.co/papers/2111.14887. Both also blur and recolour the mixed pictures, which is not done here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import IGNORED_LABEL, SOURCE, TARGET, BuildContext, Objective, View
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.visits import seed_of
from hf_transfer.domain_adaptation.advent import domain_of_rows, require_maps
from hf_transfer.domain_adaptation.two_domains import has_both_domains
from hf_transfer.functional.keyword_checks import require_share

PIXELS = "pixel_values"


def pasted_pixels(labels: Tensor, generator: torch.Generator) -> Tensor:
    """The pixels of a random half (rounded up) of the classes of every map, [B, h, w] bool.

    Args:
        labels: [B, h, w], `IGNORED_LABEL` where unknown.
        generator: of the CPU.
    """
    chosen = torch.zeros_like(labels, dtype=torch.bool)
    for place, one in enumerate(labels):
        classes = one.unique()
        classes = classes[classes != IGNORED_LABEL]
        order = torch.randperm(len(classes), generator=generator)[: (len(classes) + 1) // 2]
        chosen[place] = torch.isin(one, classes[order.to(classes.device)])
    return chosen


class DACS(Objective):
    """Cross-domain mixed sampling with a mean teacher, for semantic segmentation.

    Args:
        momentum: of the teacher's moving average, in [0, 1).
        threshold: probability above which a pixel of the teacher is confident, in [0, 1).
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model gives no maps.
    """

    paper = "2007.08702"
    tasks = frozenset({SINGLE_LABEL})
    needs = frozenset({"outputs", "inputs", "labels", "domain"})
    reads_outputs = frozenset({"logits"})

    def __init__(self, momentum: float = 0.99, threshold: float = 0.968, weight: float = 1.0):
        super().__init__(weight)
        require_share(momentum=momentum, threshold=threshold)
        self.momentum = momentum
        self.threshold = threshold

    def build(self, context: BuildContext) -> None:
        require_maps(context, "DACS")
        context.require_classes(2, "DACS")
        self.teacher = FrozenCopy(context.model, self.momentum)
        self.register_buffer("steps", torch.zeros((), dtype=torch.long))

    def forward(self, view: View) -> Tensor:
        logits = view.outputs["logits"]
        if not has_both_domains(view) or view.labels is None:
            return logits.sum() * 0.0
        domain, size = domain_of_rows(view, len(logits)), grid_of(len(view.labels) // len(logits), logits.shape[-2:])
        source, target = (domain == SOURCE).nonzero()[:, 0], (domain == TARGET).nonzero()[:, 0]
        source = source[torch.arange(len(target), device=source.device) % len(source)]
        labels = view.labels.reshape(len(logits), *size)[source]
        pixels = view.inputs[PIXELS]
        with torch.no_grad():
            expected = resized(self.teacher(**{PIXELS: pixels[target]}).logits, size).softmax(dim=1)
        sure, guessed = expected.max(dim=1)
        pasted = pasted_pixels(labels, torch.Generator().manual_seed(seed_of(repr(view.progress).encode())))
        mixed = torch.where(enlarged(pasted, pixels.shape[-2:]), pixels[source], pixels[target])
        answers = resized(view.model(**{PIXELS: mixed}).logits, size)
        losses = F.cross_entropy(answers, torch.where(pasted, labels, guessed), reduction="none")
        return (losses * torch.where(pasted, 1.0, (sure > self.threshold).float().mean())).mean()

    def after_step(self, model: nn.Module) -> None:
        self.steps += 1
        self.teacher.update(model, min(1.0 - 1.0 / (self.steps.item() + 1), self.momentum))


def grid_of(units: int, size: torch.Size) -> tuple[int, int]:
    """Height and width of the grid of a picture's units, whose sides go as those of its logits.

    Some models, such as UperNet, enlarge what their last layer gives to the size of the picture.
    """
    height = round(math.sqrt(units * size[0] / size[1]))
    return height, units // height


def resized(logits: Tensor, size: tuple[int, int]) -> Tensor:
    """Logits [B, C, H, W] at the grid of the units, in float32."""
    if logits.shape[-2:] == size:
        return logits.float()
    return F.interpolate(logits.float(), size=size, mode="bilinear", align_corners=False)


def enlarged(mask: Tensor, size: torch.Size) -> Tensor:
    """A mask [B, h, w] at the size of the pictures, [B, 1, H, W] bool."""
    return F.interpolate(mask.unsqueeze(1).float(), size=size, mode="nearest").bool()
