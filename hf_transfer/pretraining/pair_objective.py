"""What the contrasts of image-text pairs share: the two embeddings of a row and the scale of their cosines.

    s = exp(log_scale),   log_scale <- clamp(log_scale, 0, ln max_scale) after each step

The scale is the parameter `logit_scale` of the model, so that it is saved with it; a model without one gets it here.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View
from hf_transfer.functional.keyword_checks import require_positive
from hf_transfer.modeling.anatomy import unwrap_peft

EMBEDDINGS = ("image_embeds", "text_embeds")
"""The outputs of a model with two towers, each [B, D]: the names are those of transformers."""
TOWERS = ("get_image_features", "get_text_features")


class PairObjective(Objective):
    """Reads the embeddings of image and text of every row, of all processes.

    Args:
        max_scale: largest s, at least 1; None leaves the scale free.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: `max_scale` is below 1; at `build`, the model has no two towers.
    """

    needs = frozenset({"outputs", "global_batch"})
    reads_outputs = frozenset(EMBEDDINGS)

    def __init__(self, max_scale: float | None, weight: float):
        super().__init__(weight)
        if max_scale is not None and max_scale < 1:
            raise ValueError(f"`max_scale` should be at least 1, got {max_scale}.")
        self.max_scale = max_scale

    def build(self, context: BuildContext) -> None:
        model = unwrap_peft(context.model)
        if not all(hasattr(model, name) for name in TOWERS):
            raise ValueError(
                f"{type(self).__name__} compares the embeddings of an image tower and a text tower, and a "
                f"{type(model).__name__} has no two: load a CLIPModel, a SiglipModel or a VisionTextDualEncoderModel, "
                "which joins any two models that give a `pooler_output`."
            )

    def start(self, model: nn.Module, name: str, value: float | None, usual: float) -> None:
        """Begin a number in training, that of the model where it has one, at a value.

        Args:
            model: in training.
            name: of the parameter, of the model or of this objective.
            value: to begin with; None leaves the model's as it is.
            usual: where the model has none and no value is given.

        Raises:
            ValueError: a value for a number of the model that is frozen.
        """
        own = getattr(unwrap_peft(model), name, None)
        if own is None:
            self.register_parameter(name, nn.Parameter(torch.tensor(usual if value is None else value)))
        elif value is not None:
            if not own.requires_grad:
                raise ValueError(
                    f"the model's `{name}` is frozen, as under an adapter, and would be saved as it was: leave the "
                    "keyword that sets it out."
                )
            nn.init.constant_(own, value)

    def number(self, name: str, model: nn.Module) -> Tensor:
        """What `start` began, a scalar."""
        return self._parameter(name, model).float().squeeze()

    def _parameter(self, name: str, model: nn.Module) -> nn.Parameter:
        return getattr(self, name) if hasattr(self, name) else getattr(unwrap_peft(model), name)

    @staticmethod
    def embeddings(view: View) -> tuple[Tensor, Tensor]:
        """Images and texts [B, D], of unit length.

        Raises:
            ValueError: the model does not give them.
        """
        missing = [name for name in EMBEDDINGS if name not in view.outputs]
        if missing:
            raise ValueError(f"the model gives no {missing} for a batch with {sorted(view.inputs)}.")
        image, text = (F.normalize(view.outputs[name].float(), dim=1) for name in EMBEDDINGS)
        return image, text

    @torch.no_grad()
    def after_step(self, model: nn.Module) -> None:
        scale = self._parameter("logit_scale", model)
        if self.max_scale is not None and scale.requires_grad:
            scale.clamp_(0.0, math.log(self.max_scale))


def log_scale(temperature: float | None) -> float | None:
    """ln(1 / T) of a keyword that may be left out.

    Raises:
        ValueError: it is not positive.
    """
    if temperature is None:
        return None
    require_positive(temperature=temperature)
    return -math.log(temperature)
