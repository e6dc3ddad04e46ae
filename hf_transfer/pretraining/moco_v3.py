"""MoCo v3: contrast within the batch, against keys that a momentum encoder gives the other view.

    loss = 2T InfoNCE(q1, k2) + 2T InfoNCE(q2, k1),   InfoNCE over the keys of all rows of the batch
    q = h(g(f(view))),   k = g'(f'(view)),   f' <- m f' + (1 - m) f,   m = 1 - (1 - m0) (1 + cos(pi progress)) / 2

f is the model, g a projector, h a predictor; f' and g' are moving averages of f and g, whose momentum grows from m0 to
1. There is no queue. Several processes gather queries and keys: negatives and the heads' batch norms are those of the
whole batch. What the batch norms of f' do is said in `blocks/momentum_encoder.py`.

Paper: Chen, Xie and He, "An Empirical Study of Training Self-Supervised Vision Transformers", ICCV 2021,
https://huggingface.co/papers/2104.02057. Defaults are those released for a ViT: T = .2, three layers of projector and
two of predictor, 4,096 wide, 256 dimensions, m0 = .99. For a ResNet: `{temperature: 1.0, projector_layers: 2,
predictor_norm: false}`. Released training of a ViT: AdamW with rate 1.5e-4 at batch 256, weight decay .1, 40 epochs of
warm-up, and a patch embedding that stays as it starts (`freeze_patches`).
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from hf_transfer.core.frozen_copy import FrozenCopy
from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_positive, require_share
from hf_transfer.functional.processes import from_all_uneven
from hf_transfer.pretraining.blocks.info_nce import info_nce
from hf_transfer.pretraining.blocks.momentum_encoder import MomentumEncoder
from hf_transfer.pretraining.blocks.projection import projection_head


def cosine_momentum(start: float, progress: float) -> float:
    """From `start` at progress 0 to 1 at progress 1, along half a cosine."""
    return 1.0 - (1.0 - start) * (1.0 + math.cos(math.pi * progress)) / 2.0


class MoCoV3(Objective):
    """Symmetric contrast with a momentum encoder, a projector and a predictor.

    Args:
        temperature: T > 0.
        momentum: m0, the momentum at the start, in [0, 1).
        projection_dim: width of queries and keys.
        hidden_size: width of the hidden layers of projector and predictor.
        projector_layers: at least 1.
        predictor_layers: at least 1.
        predictor_norm: a batch norm, without gain and shift, after the predictor.
        freeze_patches: the convolution that embeds the patches of a ViT does not train.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; units are parts of rows; there are no patches to freeze.
    """

    paper = "2104.02057"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "inputs", "views"})
    can_collapse = True
    usual_views = "moco_v3"

    def __init__(
        self,
        temperature: float = 0.2,
        momentum: float = 0.99,
        projection_dim: int = 256,
        hidden_size: int = 4096,
        projector_layers: int = 3,
        predictor_layers: int = 2,
        predictor_norm: bool = True,
        freeze_patches: bool = False,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_positive(temperature=temperature, projection_dim=projection_dim, hidden_size=hidden_size)
        require_positive(projector_layers=projector_layers, predictor_layers=predictor_layers)
        require_share(momentum=momentum)
        self.temperature = temperature
        self.momentum = momentum
        self.projection_dim = projection_dim
        self.hidden_size = hidden_size
        self.projector_layers = projector_layers
        self.predictor_layers = predictor_layers
        self.predictor_norm = predictor_norm
        self.freeze_patches = freeze_patches

    def build(self, context: BuildContext) -> None:
        context.require_rows("MoCo v3")
        if self.freeze_patches:
            freeze_patch_embedding(context.model)
        hidden, width = [self.hidden_size], self.projection_dim
        widths = [context.feature_dim, *hidden * (self.projector_layers - 1), width]
        self.projector = projection_head(widths, last_norm="plain")
        widths = [width, *hidden * (self.predictor_layers - 1), width]
        self.predictor = projection_head(widths, last_norm="plain" if self.predictor_norm else None)
        self.key_encoder = MomentumEncoder(context)
        self.key_projector = FrozenCopy(self.projector)
        self._progress = 0.0

    def forward(self, view: View) -> Tensor:
        self._progress = view.progress
        pair = (view, view.views[0])
        features = [from_all_uneven(one.features) for one in pair]
        keys = [from_all_uneven(self.key_encoder(one.inputs)) for one in pair]
        if len(features[0]) < 2:
            return no_loss(view)
        first, second = (self.predictor(self.projector(one)) for one in features)
        with torch.no_grad():
            first_key, second_key = (self.key_projector(one) for one in keys)
        both = info_nce(first, second_key, self.temperature) + info_nce(second, first_key, self.temperature)
        return 2 * self.temperature * both

    def after_step(self, model: nn.Module) -> None:
        momentum = cosine_momentum(self.momentum, self._progress)
        self.key_encoder.update(model, momentum)
        self.key_projector.update(self.projector, momentum)


def freeze_patch_embedding(model: nn.Module) -> None:
    """Keep a ViT's patch embedding as it is.

    Raises:
        ValueError: the model has no module called `patch_embeddings` or `patch_embedding`.
    """
    found = [part for name, part in model.named_modules() if name.split(".")[-1].startswith("patch_embedding")]
    if not found:
        raise ValueError(
            f"`freeze_patches` is for models that embed patches, and a {type(model).__name__} has no module "
            "`patch_embeddings`: leave it out."
        )
    for part in found:
        part.requires_grad_(False)
