"""LiT: the image tower of a pair of towers is locked, and the text tower learns to read it.

    d loss / d theta_image = 0,   theta_text <- theta_text - rate * d loss / d theta_text

The image tower takes no gradient and stays in evaluation mode: dropout is off and batch statistics stand still. The
projections onto the common space, and the scale, learn on. (The paper's main setting has no projection on the side of
the images; transformers' models with two towers have one.)

Paper: Zhai et al., "LiT: Zero-Shot Transfer with Locked-image Text Tuning", CVPR 2022,
https://huggingface.co/papers/2111.07991.
"""

from __future__ import annotations

from typing import Any

from torch import nn

from hf_transfer.core.converter import converts
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.surgery import reclass

IMAGE_TOWER = "vision_model"
"""What transformers' models with two towers call it."""


@converts()
def convert(model: nn.Module, *, tower: str = IMAGE_TOWER) -> nn.Module:
    """Lock a tower of a model, in place; names and values of its parameters stay.

    Args:
        model: a CLIPModel, SiglipModel, VisionTextDualEncoderModel or another with a module of that name.
        tower: name of the module that is locked.

    Raises:
        ValueError: the model has no such module.
    """
    base = unwrap_peft(model)
    locked = getattr(base, tower, None)
    if not isinstance(locked, nn.Module):
        names = [name for name, _ in base.named_children()]
        raise ValueError(f"`lit`: `tower` should be a module of {type(base).__name__}, got {tower!r}, of {names}.")
    locked.requires_grad_(False)
    reclass(locked, Locked)
    locked.eval()
    return model


convert.paper = "2111.07991"


class Locked:
    """Evaluation mode whatever mode the module around it is in; mixed into the tower's own class."""

    def train(self, mode: bool = True) -> Any:
        return super().train(False)
