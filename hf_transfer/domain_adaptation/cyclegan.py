"""CycleGAN: unpaired translation of source images into target images, and a model that learns from the translations.

    translate  G_st, G_ts descend  loss = (D_t(G_st s) - 1)^2 + (D_s(G_ts t) - 1)^2
                                        + lambda (|G_ts G_st s - s| + |G_st G_ts t - t|)
                                        + lambda identity (|G_ts s - s| + |G_st t - t|)
    discriminate_images  D_s, D_t descend  loss = 1/2 (D_t(t) - 1)^2 + 1/2 D_t(b_t)^2 + the same of D_s
    task       the model descends  loss = L(s, y) + weight * L(G_st s, y), the second from `starts_at` on

All terms are means, L is the task loss. b are translated images, half of them from a buffer of earlier ones.

Paper: Zhu et al., "Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial Networks", ICCV 2017,
https://huggingface.co/papers/1703.10593. lambda 10, identity .5, buffer 50, width 64 and 6 blocks as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any
from uuid import uuid4

import numpy as np
import torch
import torch.nn.functional as F
from datasets import Dataset, Features, Image
from PIL import Image as PILImage
from torch import Tensor, nn

from hf_transfer.core.objective import SOURCE, TARGET, AlternatingObjective, BuildContext, Phase, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM, problem_type_of_outputs, task_loss
from hf_transfer.domain_adaptation.translation_networks import (
    Generator,
    ImageBuffer,
    PatchDiscriminator,
    least_squares,
)
from hf_transfer.domain_adaptation.two_domains import require_both_domains
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive, require_share

PIXELS = "pixel_values"


class CycleGAN(AlternatingObjective):
    """Joint training of the translators and of the model on translated source images.

    The images are `pixel_values` in [-1, 1], as `hf_transfer.data.images.image_processor` makes them.

    Args:
        cycle_weight: lambda.
        identity_weight: of the identity loss, in units of lambda.
        buffer_size: images kept of each translation.
        width: channels of the networks' first layers.
        blocks: residual blocks of a generator.
        image_size: height and width, where the model's config does not say it.
        starts_at: share of the training, in [0, 1), before the model reads translated images.
        weight: of the model's loss on translated images.

    Raises:
        ValueError: a keyword is out of its range; the size of the images is not known, or they are too small; pixels
            are outside [-1, 1].
    """

    paper = "1703.10593"
    tasks = ANY_PROBLEM
    needs = frozenset({"logits", "inputs", "labels", "domain"})

    def __init__(
        self,
        cycle_weight: float = 10.0,
        identity_weight: float = 0.5,
        buffer_size: int = 50,
        width: int = 64,
        blocks: int = 6,
        image_size: int | None = None,
        starts_at: float = 0.5,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(cycle_weight=cycle_weight, identity_weight=identity_weight)
        require_positive(buffer_size=buffer_size, width=width, blocks=blocks)
        require_share(starts_at=starts_at)
        self.cycle_weight = cycle_weight
        self.identity_weight = identity_weight
        self.buffer_size = buffer_size
        self.width = width
        self.blocks = blocks
        self.image_size = image_size
        self.starts_at = starts_at

    def build(self, context: BuildContext) -> None:
        channels, size = image_shape(context.model.config, self.image_size)
        self.to_target, self.to_source = (Generator(channels, self.width, self.blocks) for _ in range(2))
        self.d_target, self.d_source = (PatchDiscriminator(channels, self.width, size) for _ in range(2))
        self.past_target, self.past_source = (ImageBuffer(self.buffer_size, channels, size) for _ in range(2))

    def prepare(self, model: nn.Module, dataloader: Any) -> None:
        pixels = next(iter(dataloader))[PIXELS]
        if pixels.min() < -1 or pixels.max() > 1:
            raise ValueError(
                "images are translated in [-1, 1], and the first batch is in "
                f"[{pixels.min():.2f}, {pixels.max():.2f}]: use an image processor with mean and deviation .5 "
                "(hf_transfer.data.images.image_processor)."
            )

    def phases(self, progress: float) -> Sequence[Phase]:
        return (
            Phase("translate", self._generators, self.translation, runs_model=False),
            Phase("discriminate_images", self._discriminators, self.image_discrimination, runs_model=False),
            Phase("task", lambda model: model.parameters(), self.translated_task, joins_task=True),
        )

    def _generators(self, model: nn.Module) -> list[nn.Parameter]:
        return [*self.to_target.parameters(), *self.to_source.parameters()]

    def _discriminators(self, model: nn.Module) -> list[nn.Parameter]:
        return [*self.d_target.parameters(), *self.d_source.parameters()]

    def translation(self, view: View) -> Tensor:
        """What the generators descend."""
        source, target = images_of(view)
        as_target, as_source = self.to_target(source), self.to_source(target)
        fooling = least_squares(self.d_target(as_target), True) + least_squares(self.d_source(as_source), True)
        cycle = F.l1_loss(self.to_source(as_target), source) + F.l1_loss(self.to_target(as_source), target)
        identity = 0.0
        if self.identity_weight:
            identity = F.l1_loss(self.to_source(source), source) + F.l1_loss(self.to_target(target), target)
        return fooling + self.cycle_weight * (cycle + self.identity_weight * identity)

    def image_discrimination(self, view: View) -> Tensor:
        """What the discriminators descend."""
        source, target = images_of(view)
        with torch.no_grad():
            as_target, as_source = self.to_target(source), self.to_source(target)
        shown_target, shown_source = self.past_target.exchange(as_target), self.past_source.exchange(as_source)
        real = least_squares(self.d_target(target), True) + least_squares(self.d_source(source), True)
        past = least_squares(self.d_target(shown_target), False)
        past = past + least_squares(self.d_source(shown_source), False)
        return 0.5 * (real + past)

    def translated_task(self, view: View) -> Tensor:
        """The model's weighted task loss on translated source images; it does not reach the generators."""
        if view.progress < self.starts_at:
            return no_loss(view)
        source = view.source
        with torch.no_grad():
            translated = self.to_target(source.inputs[PIXELS])
        logits = view.model(**{**source.inputs, PIXELS: translated}).logits.float()
        problem_type = view.problem_type or problem_type_of_outputs(logits, source.labels)
        return self.weight * task_loss(logits, source.labels, problem_type, view.label_smoothing)

    @torch.no_grad()
    def translate(self, dataset: Dataset, batch_size: int = 256) -> Dataset:
        """The rows as images of the target domain: an `image` column in place of `pixel_values`, and all others.

        Args:
            dataset: rows with `pixel_values` [C, H, W], as the training read them.
            batch_size: rows at once.
        """
        device = next(self.to_target.parameters()).device
        kept = {name: feature for name, feature in dataset.features.items() if name != PIXELS}

        def convert(rows: dict) -> dict:
            pixels = torch.as_tensor(np.asarray(rows[PIXELS]), dtype=torch.float32).to(device)
            return {"image": [as_picture(image) for image in self.to_target(pixels)]}

        features = Features({**kept, "image": Image()})
        # its own fingerprint: that of the weights would be costly, and a stored translation would be another one
        keywords = {"batched": True, "batch_size": batch_size, "new_fingerprint": uuid4().hex}
        translated = dataset.map(convert, remove_columns=[PIXELS], features=features, desc="Translating", **keywords)
        return translated.with_format(None)


def images_of(view: View) -> tuple[Tensor, Tensor]:
    """Source and target images of a batch.

    Raises:
        ValueError: the batch holds no images, or those of one domain only.
    """
    require_both_domains(view)
    if PIXELS not in view.inputs:
        raise ValueError(f"translation is for images: the batch has no `{PIXELS}`, only {sorted(view.inputs)}.")
    pixels = view.inputs[PIXELS].float()
    return pixels[view.domain == SOURCE], pixels[view.domain == TARGET]


def image_shape(config: Any, image_size: int | None) -> tuple[int, int]:
    """Channels and size of the images that a model reads.

    Raises:
        ValueError: it is not an image model, or the size is unknown or less than 8.
    """
    config = getattr(config, "vision_config", config)
    channels = getattr(config, "num_channels", None)
    size = image_size or getattr(config, "image_size", None)
    if channels is None or not isinstance(size, int) or size < 8:
        raise ValueError(
            f"translation needs images of at least 8x8 pixels; a {config.model_type} model has "
            f"num_channels={channels} and image size {size}: give `image_size`."
        )
    return channels, size


def as_picture(pixels: Tensor) -> PILImage.Image:
    """[C, H, W] in [-1, 1] as an 8-bit picture, grey or in colour."""
    levels = ((pixels.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu().numpy()
    return PILImage.fromarray(levels[0] if len(levels) == 1 else levels.transpose(1, 2, 0))
