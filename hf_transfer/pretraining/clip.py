"""CLIP: in a batch of image-text pairs every image picks its text, and every text its image.

    loss = 1/2 [ mean_i -log softmax(l_i.)_i + mean_j -log softmax(l_.j)_j ],   l_ij = s cos(image_i, text_j)

s = 1/T is learnt as its logarithm and held between 1 and `max_scale` after each step, which transformers' own CLIP
does not do. The pairs of all processes are told apart, with gradients to all of them. Rows that accumulate over
several backward passes are not: each pass compares its own. Two rows with the same text count as strangers.

Paper: Radford et al., "Learning Transferable Visual Models From Natural Language Supervision", ICML 2021,
https://huggingface.co/papers/2103.00020. T = .07 to begin with and s <= 100 as in the paper.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.pretraining.pair_objective import PairObjective, log_scale

USUAL_TEMPERATURE = 0.07


def clip_loss(images: Tensor, texts: Tensor, scale: Tensor | float) -> Tensor:
    """The mean of both cross entropies, a scalar.

    Args:
        images: [B, D] of unit length.
        texts: [B, D] of unit length; row i belongs to image i.
        scale: s, a scalar.
    """
    logits = scale * images @ texts.T
    own = torch.arange(len(logits), device=logits.device)
    return (F.cross_entropy(logits, own) + F.cross_entropy(logits.T, own)) / 2


class CLIP(PairObjective):
    """Softmax contrast of the pairs of the global batch, for any model with `image_embeds` and `text_embeds`.

    Args:
        temperature: T at the start; left out, that of the model's `logit_scale`, or .07 where it has none.
        max_scale: largest s, at least 1; None leaves it free.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model has no two towers.
    """

    paper = "2103.00020"
    tasks = ANY_PROBLEM

    def __init__(self, temperature: float | None = None, max_scale: float | None = 100.0, weight: float = 1.0):
        super().__init__(max_scale, weight)
        self.temperature = temperature
        self._log_scale = log_scale(temperature)

    def build(self, context: BuildContext) -> None:
        super().build(context)
        self.start(context.model, "logit_scale", self._log_scale, usual=log_scale(USUAL_TEMPERATURE))

    def forward(self, view: View) -> Tensor:
        return clip_loss(*self.embeddings(view), self.number("logit_scale", view.model).exp())
