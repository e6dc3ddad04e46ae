"""Tiny models with every kind of adapter, for the tests of the tuners."""

from __future__ import annotations

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor, nn

from hf_transfer.tuners.difference import DifferenceConfig
from hf_transfer.tuners.residual import ResidualConfig
from hf_transfer.tuners.side import SideConfig
from tests import tiny

MODELS = {
    "bert": tiny.bert,
    "gpt2": tiny.gpt2,
    "vit": tiny.vit,
    "resnet": tiny.resnet,
    "flowformer": tiny.flowformer,
}
CONFIGS = {
    "serial": lambda **more: ResidualConfig(r=4, **more),
    "linear": lambda **more: ResidualConfig(r=4, placement="parallel", non_linearity=None, **more),
    "difference": lambda **more: DifferenceConfig(share=0.05, is_structured=True, **more),
    "bit_fit": lambda **more: DifferenceConfig(bias_only=True, **more),
    "side": lambda **more: SideConfig(**more),
}
HEADS = {"gpt2": "score"}
MERGEABLE = ("linear", "difference", "bit_fit")


def base_model(name: str) -> nn.Module:
    """The same weights whenever it is called."""
    torch.manual_seed(0)
    return MODELS[name]().eval()


def inputs_for(name: str) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(1)
    if name in tiny.TEXT_MODELS:
        ids = torch.randint(1, 99, (3, 7), generator=generator)
        return {"input_ids": ids, "attention_mask": torch.ones_like(ids)}
    return {"pixel_values": torch.randn(3, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, generator=generator)}


def adapted_model(name: str, kind: str, with_head: bool = True, **more) -> PeftModel:
    """A model with one adapter in its first state."""
    head = {"modules_to_save": [HEADS.get(name, "classifier")]} if with_head else {}
    return get_peft_model(base_model(name), CONFIGS[kind](**head, **more)).eval()


def shake(model: nn.Module, adapter: str = "default", seed: int = 2) -> None:
    """Put an adapter where training might have: random weights, gates some of which are shut."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter_name, parameter in model.named_parameters():
            if f".{adapter}." in f"{parameter_name}." and "base_layer" not in parameter_name.split("_tuner_")[-1]:
                spread = 0.02 if parameter_name.rsplit(".", 1)[-1] in ("gate", "tensor_gate") else 0.1
                parameter.add_(spread * torch.randn(parameter.shape, generator=generator).to(parameter.dtype))


@torch.no_grad()
def logits(model: nn.Module, inputs: dict[str, Tensor]) -> Tensor:
    return model(**inputs).logits
