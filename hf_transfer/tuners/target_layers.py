"""Which layers a tuner adapts when the user names none: found from the model, whatever its architecture.

The blocks of a backbone are the modules in its numbered lists (`encoder.layer.0`, `h.3`, `stages.1.layers.0`).
"""

from __future__ import annotations

from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from hf_transfer.modeling.anatomy import backbone_of, base_layer

LINEAR = (nn.Linear, Conv1D)
OUTPUT_LAYERS = (
    "output.dense",  # BERT and its kin: attention.output.dense, output.dense
    "o_proj",
    "out_proj",
    "c_proj",  # GPT-2, both
    "fc2",
    "down_proj",
    "fc_out",
    "out_lin",  # DistilBERT
    "lin2",
    "attention.dense",  # GPT-NeoX, ALBERT
    "self_attention.dense",  # BLOOM, Falcon
    "self_attn.dense",  # Phi
    "dense_4h_to_h",
    "ffn_output",
    "SelfAttention.o",  # T5
    "EncDecAttention.o",
    "wo",
    "pwconv2",  # ConvNeXt
)
"""Endings of the names of the linear layers that close an attention or a feed-forward block."""


def backbone_modules(model: nn.Module) -> dict[str, nn.Module]:
    """Every module of the backbone by its name in `model`; what lies inside adapters is left out.

    A model that is no Hugging Face model, or has no head, is its own backbone.
    """
    backbone = model
    if isinstance(model, PreTrainedModel):
        try:
            backbone = backbone_of(model)
        except ValueError:
            backbone = model
    inside = {id(module) for module in backbone.modules()}
    adapted = {
        id(inner)
        for module in model.modules()
        if base_layer(module) is not module
        for inner in module.modules()
        if inner is not module
    }
    return {
        name: module
        for name, module in model.named_modules()
        if name and id(module) in inside and id(module) not in adapted
    }


def block_layers(model: nn.Module, kinds: tuple[type[nn.Module], ...]) -> dict[str, nn.Module]:
    """The layers of these kinds in the blocks of the backbone, by name."""
    return {
        name: base_layer(module)
        for name, module in backbone_modules(model).items()
        if isinstance(base_layer(module), kinds) and any(part.isdigit() for part in name.split("."))
    }


def output_layers(model: nn.Module) -> set[str]:
    """Names of the linear layers that close the attention and feed-forward blocks; of all in the blocks if unknown."""
    linear = block_layers(model, LINEAR)
    closing = {name for name in linear if f".{name}".endswith(tuple(f".{ending}" for ending in OUTPUT_LAYERS))}
    return closing or set(linear)


def spatial_convolutions(model: nn.Module) -> set[str]:
    """Names of the convolutions in the blocks that look at more than one place and mix all channels."""
    convolutions = block_layers(model, (nn.Conv2d,))
    return {name for name, layer in convolutions.items() if max(layer.kernel_size) > 1 and layer.groups == 1}


def closing_convolutions(model: nn.Module) -> set[str]:
    """Names of the last convolution of every block that mixes all channels: the projections of separable ones."""
    last = {}
    for name, layer in block_layers(model, (nn.Conv2d,)).items():
        if layer.groups == 1:
            parts = name.split(".")
            innermost = max(index for index, part in enumerate(parts) if part.isdigit())
            last[tuple(parts[: innermost + 1])] = name
    return set(last.values())


def layers_with_bias(model: nn.Module) -> set[str]:
    """Names of all layers of the backbone that have a bias."""
    modules = backbone_modules(model)
    return {name for name, module in modules.items() if base_layer(module)._parameters.get("bias") is not None}
