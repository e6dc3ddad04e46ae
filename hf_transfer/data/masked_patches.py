"""Which patches of an image a masked-image model hides: by the row and the epoch alone, and in evaluation by the row.

A masked autoencoder (ViTMAE, Flowformer) hides the patches with the largest `noise`, which it draws anew at every
forward when nobody gives it; the loss of an evaluation is then another one every time. Models that replace patches in
front of the encoder (ViT, Swin and others, as SimMIM) take `bool_masked_pos` and have no loss without it: `hidden` of
their patches are the ones with the largest noise.

Papers: He et al., "Masked Autoencoders Are Scalable Vision Learners", CVPR 2022, https://huggingface.co/papers/2111.06377;
Xie et al., "SimMIM", CVPR 2022, https://huggingface.co/papers/2111.09886 (60 % hidden; single patches here, whatever
their size, and blocks of 32 pixels in the paper).
"""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from hf_transfer.data.visits import VISIT_COLUMN, seed_of

NOISE, MASK = "noise", "bool_masked_pos"
HIDDEN_SHARE = 0.6
KINDS = ("ForMaskedImageModeling", "MAEForPreTraining")
"""Ends of the class names of models that hide patches."""


@dataclass(frozen=True)
class PatchMaskCollator:
    """Adds `noise` [B, N] or `bool_masked_pos` [B, N] to the batches of another collator, N patches an image.

    A row that comes with its visit is masked anew in each epoch; one without, as in evaluation, is masked by its
    content: alike every time.

    Args:
        collator: makes a batch of rows with `pixel_values` [B, C, H, W].
        patch_size: height and width of a patch in pixels.
        column: `noise` or `bool_masked_pos`, what the model takes.
        seed: of the draws.
    """

    collator: Callable[[Sequence[Any]], Mapping[str, Any]]
    patch_size: tuple[int, int]
    column: str = NOISE
    seed: int = 0
    reads_visits: ClassVar[bool] = True

    def __call__(self, rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
        visits = [row.get(VISIT_COLUMN) for row in rows]
        if not getattr(self.collator, "reads_visits", False):
            rows = [{name: value for name, value in row.items() if name != VISIT_COLUMN} for row in rows]
        batch = dict(self.collator(rows))
        if self.column in batch:
            return batch
        images = batch["pixel_values"]
        patches = (images.shape[-2] // self.patch_size[0]) * (images.shape[-1] // self.patch_size[1])
        noise = torch.stack([self._noise(*row, patches) for row in zip(images, visits, strict=True)])
        if self.column == NOISE:
            return {**batch, NOISE: noise}
        kept = patches - round(HIDDEN_SHARE * patches)
        return {**batch, MASK: noise.argsort(dim=1).argsort(dim=1) >= kept}

    def _noise(self, image: Tensor, visit: Any, patches: int) -> Tensor:
        """[N] in [0, 1)."""
        content = f"{self.seed} ".encode() + image.contiguous().numpy().tobytes() if visit is None else b""
        seed = seed_of(content) if visit is None else visit.seed(self.seed)
        return torch.rand(patches, generator=torch.Generator().manual_seed(seed))


def with_patch_masks(collator: Any, model: nn.Module, seed: int) -> Any:
    """The collator; a PatchMaskCollator around it where the model hides patches of images.

    Args:
        collator: of any kind.
        model: a Hugging Face model.
        seed: of the draws.
    """
    size = getattr(getattr(model, "config", None), "patch_size", None)
    if size is None or not type(model).__name__.endswith(KINDS) or isinstance(collator, PatchMaskCollator):
        return collator
    accepted = inspect.signature(model.forward).parameters
    column = next((name for name in (NOISE, MASK) if name in accepted), None)
    if column is None:
        return collator
    return PatchMaskCollator(collator, (size, size) if isinstance(size, int) else tuple(size), column, seed)
