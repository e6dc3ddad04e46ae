"""SigLIP: each image and each text of a batch are told to belong together or not, pair by pair.

    loss = - 1/B sum_ij log sigmoid( y_ij (s cos(image_i, text_j) + b) ),   y_ij = 1 if i = j else -1

s = exp(t) and b are learnt. There is no softmax, so that no pair's loss depends on the others'; the pairs of all
processes are told apart nevertheless, with gradients to all of them.

Paper: Zhai et al., "Sigmoid Loss for Language Image Pre-Training", ICCV 2023, https://huggingface.co/papers/2303.15343.
t = ln 10 and b = -10 to begin with as in the paper, which does not bound s (released models reach 117).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.pretraining.pair_objective import PairObjective, log_scale

USUAL_TEMPERATURE, USUAL_BIAS = 0.1, -10.0


def siglip_loss(images: Tensor, texts: Tensor, scale: Tensor | float, bias: Tensor | float) -> Tensor:
    """The sum over all pairs over the number of rows, a scalar.

    Args:
        images: [B, D] of unit length.
        texts: [B, D] of unit length; row i belongs to image i.
        scale: s, a scalar.
        bias: b, a scalar.
    """
    logits = scale * images @ texts.T + bias
    signs = 2 * torch.eye(len(logits), device=logits.device) - 1
    return -F.logsigmoid(signs * logits).sum() / len(logits)


class SigLIP(PairObjective):
    """Sigmoid contrast of the pairs of the global batch, for any model with `image_embeds` and `text_embeds`.

    A model with a `logit_bias` of its own, a SiglipModel, goes on from its scale and bias; with 0 and 0, as
    transformers makes a new one, and in all other models, both begin as in the paper. The bias of these others is kept
    beside the model, in checkpoints: the order of similarities does not depend on it.

    Args:
        temperature: 1 / s at the start.
        bias: b at the start.
        max_scale: largest s, at least 1; None leaves it free.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the model has no two towers.
    """

    paper = "2303.15343"
    tasks = ANY_PROBLEM

    def __init__(
        self,
        temperature: float | None = None,
        bias: float | None = None,
        max_scale: float | None = None,
        weight: float = 1.0,
    ):
        super().__init__(max_scale, weight)
        self.temperature = temperature
        self.bias = bias
        self._log_scale = log_scale(temperature)

    def build(self, context: BuildContext) -> None:
        super().build(context)
        model = unwrap_peft(context.model)
        scale, bias = self._log_scale, self.bias
        if is_new(model):
            scale = log_scale(USUAL_TEMPERATURE) if scale is None else scale
            bias = USUAL_BIAS if bias is None else bias
        self.start(model, "logit_scale", scale, usual=log_scale(USUAL_TEMPERATURE))
        self.start(model, "logit_bias", bias, usual=USUAL_BIAS)

    def forward(self, view: View) -> Tensor:
        scale, bias = (self.number(name, view.model) for name in ("logit_scale", "logit_bias"))
        return siglip_loss(*self.embeddings(view), scale.exp(), bias)


def is_new(model: nn.Module) -> bool:
    """Whether the scale and the bias that a model has in training say nothing for this loss yet."""
    scale, bias = getattr(model, "logit_scale", None), getattr(model, "logit_bias", None)
    if scale is None or not scale.requires_grad:
        return False
    return bias is None or (scale.item() == 0 and bias.item() == 0)
