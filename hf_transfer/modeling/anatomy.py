"""Backbone and head of any Hugging Face model, found from the model itself.

The backbone is the submodule that `base_model_prefix` names. The head is everything outside it; its last linear layer
with `num_labels` outputs is where features end and logits begin. With PEFT both are looked up under the adapters.
"""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from peft import PeftModel
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils.other import ModulesToSaveWrapper
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils.hooks import RemovableHandle
from transformers import PreTrainedModel
from transformers.models.auto.modeling_auto import MODEL_MAPPING_NAMES

AUXILIARY = "auxiliary_head"
"""What segmentation models call a second head that only trains the backbone."""


def unwrap_peft(model: nn.Module) -> PreTrainedModel:
    """The Hugging Face model under the adapters, or the model itself.

    Raises:
        TypeError: the model is neither a `PreTrainedModel` nor a `PeftModel`.
    """
    base = model.get_base_model() if isinstance(model, PeftModel) else model
    if not isinstance(base, PreTrainedModel):
        raise TypeError(
            f"`model` should be a Hugging Face PreTrainedModel or a PeftModel, got {type(model).__name__}: load it "
            "with AutoModelForSequenceClassification, AutoModelForImageClassification or another Auto class."
        )
    return base


def backbone_of(model: nn.Module) -> nn.Module:
    """The module that `base_model_prefix` names, or the only Hugging Face model inside.

    Raises:
        ValueError: there is neither, so the model is a backbone without a head.
    """
    base = unwrap_peft(model)
    named = getattr(base, base.base_model_prefix, None) if base.base_model_prefix else None
    if isinstance(named, nn.Module):
        return named
    # CLIP, SigLIP and Whisper classifiers hold half of the model that their prefix names.
    inner = [child for child in base.children() if isinstance(child, PreTrainedModel)]
    if len(inner) != 1:
        raise ValueError(
            f"{type(base).__name__} has no head: it is a backbone alone. Load the same weights with a head, "
            "for example AutoModelForImageClassification or AutoModelForSequenceClassification."
        )
    return inner[0]


def linear_heads(model: nn.Module) -> list[nn.Module]:
    """The linear layers (or 1x1 convolutions) outside the backbone with `config.num_labels` outputs, in module order.

    A layer that carries an adapter counts as one, the adapter included.

    Raises:
        ValueError: there is none.
    """
    base = unwrap_peft(model)
    wrappers = [backbone_of(model), *(module for module in base.modules() if isinstance(module, BaseTunerLayer))]
    inside = {id(module) for wrapper in wrappers for module in wrapper.modules() if module is not wrapper}
    num_labels = base.config.num_labels
    heads = [
        module
        for name, module in base.named_modules()
        if id(module) not in inside
        and AUXILIARY not in name.split(".")
        and width_of(base_layer(module))[1] == num_labels
    ]
    if not heads:
        raise ValueError(
            f"{type(base).__name__} has no linear head with num_labels={num_labels} outputs. Transfer methods read "
            "the input of the last linear layer: use a model for classification or regression, with `num_labels` set "
            "to the number of classes of the dataset."
        )
    return heads


def base_layer(module: nn.Module) -> nn.Module:
    """The layer under an adapter, or the module itself."""
    return module.get_base_layer() if isinstance(module, BaseTunerLayer) else module


def head_in_use(model: nn.Module) -> nn.Module:
    """The last linear head that runs, with what adapters it carries: of PEFT's copies of a head the active one."""
    unused: set[int] = set()
    for wrapper in unwrap_peft(model).modules():
        if isinstance(wrapper, ModulesToSaveWrapper):
            parts = {"": wrapper.original_module, **wrapper.modules_to_save}
            active = next(iter([] if wrapper.disable_adapters else wrapper.active_adapters), "")
            del parts[active if active in parts else ""]
            unused.update(id(module) for part in parts.values() for module in part.modules())
    return [head for head in linear_heads(model) if id(head) not in unused][-1]


def width_of(layer: nn.Module) -> tuple[int, int]:
    """Widths of the input and the output of a linear layer or a 1x1 convolution; (0, 0) for any other module."""
    if isinstance(layer, nn.Linear):
        return layer.in_features, layer.out_features
    if isinstance(layer, nn.Conv2d) and layer.kernel_size == (1, 1) and layer.groups == 1:
        return layer.in_channels, layer.out_channels
    return 0, 0


def output_layers(model: nn.Module) -> list[nn.Module]:
    """The layers that give a model's outputs: its linear heads, and what it calls its output embeddings."""
    base = unwrap_peft(model)
    try:
        heads = linear_heads(model)
    except ValueError:
        heads = []
    embeddings = base.get_output_embeddings()
    return heads if embeddings is None else [*heads, embeddings]


def apply_head(model: nn.Module, features: Tensor, detached: bool = False) -> Tensor:
    """What the head in use, adapters included, makes of other features: [B, D] -> [B, C] float32.

    Args:
        model: a Hugging Face model or PEFT model with a linear head.
        features: [B, D].
        detached: the head's own parameters receive no gradient.
    """
    head = head_in_use(model)
    dtype = base_layer(head).weight.dtype
    inputs = features.to(dtype) if dtype.is_floating_point else features
    is_map = isinstance(base_layer(head), nn.Conv2d)  # 1x1: every row is a map of one pixel
    inputs = inputs[:, :, None, None] if is_map else inputs
    if not detached:
        return head(inputs).float().flatten(1)
    fixed = {name: parameter.detach() for name, parameter in head.named_parameters()}
    return functional_call(head, fixed, (inputs,)).float().flatten(1)


@torch.no_grad()
def head_weight(model: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] (zeros where it has none) of the head in use, adapters included; float32, detached.

    They are read from the outputs: of the head on 0 and on the unit vectors.
    """
    head = head_in_use(model)
    was_training = head.training
    head.eval()
    try:
        bias, *columns = apply_head(model, _zero_and_units(base_layer(head)))
    finally:
        head.train(was_training)
    return (torch.stack(columns) - bias).T, bias


@torch.no_grad()
def check_head_is_linear(model: nn.Module, reader: str) -> None:
    """Refuse a head whose adapter has a nonlinearity, for those who read its weights.

    Raises:
        ValueError: with random weights the head is not linear.
    """
    head = copy.deepcopy(head_in_use(model)).eval()
    generator = torch.Generator().manual_seed(0)
    for parameter in head.parameters():
        if parameter.is_floating_point():
            drawn = torch.randn(parameter.shape, generator=generator)
            parameter.copy_(drawn / max(1, parameter.shape[-1]) ** 0.5)
    width = base_layer(head).in_features
    weight = base_layer(head).weight
    first, second = torch.randn(2, width, generator=generator).to(weight.device)
    inputs = torch.stack([first * 0, first, second, first + second])
    zero, one, other, both = head(inputs.to(weight.dtype) if weight.is_floating_point() else inputs).float()
    if not torch.allclose(one + other, both + zero, rtol=0.05, atol=0.05):
        raise ValueError(
            f"{reader} reads the weights of the classifier, and the adapter on it is not linear: leave the classifier "
            "out of `target_modules` and name it in `modules_to_save`."
        )


def _zero_and_units(layer: nn.Linear) -> Tensor:
    """[D + 1, D]: a row of zeros and the unit vectors."""
    units = torch.eye(layer.in_features, device=layer.weight.device)
    return torch.cat([torch.zeros_like(units[:1]), units])


def moving_batch_norms(model: nn.Module, average: nn.Module) -> list[nn.Module]:
    """The batch norms of the average whose counterparts in the model take the statistics of the batch in training.

    Those that an adapter leaves frozen do not.
    """
    batch_norm = nn.modules.batchnorm._BatchNorm
    pairs = [(own, twin) for own, twin in zip(model.modules(), average.modules()) if isinstance(own, batch_norm)]
    rests = isinstance(model, PeftModel)
    return [twin for own, twin in pairs if not rests or _moves(own)]


def hold_frozen_batch_norms(model: nn.Module) -> None:
    """Put frozen batch norms in evaluation mode, so that they use their stored statistics and do not change them.

    An adapter's folder does not hold new ones; nor does it where an adapter trains their biases alone (`bias: all`).
    """
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and not _moves(module):
            module.eval()


def _moves(norm: nn.Module) -> bool:
    """Whether a batch norm of an adapted model is trained whole, and so saved with its statistics."""
    return norm.weight is not None and norm.weight.requires_grad


def feature_width(model: nn.Module) -> int:
    """D, the width of the input of the last linear head."""
    return width_of(base_layer(linear_heads(model)[-1]))[0]


def backbone_parameter_names(model: nn.Module) -> list[str]:
    """Names, as in `model.named_parameters()`, of the trainable parameters of the backbone."""
    inside = _backbone_parameters(model)
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) in inside]


def head_parameter_names(model: nn.Module) -> list[str]:
    """Names, as in `model.named_parameters()`, of the trainable parameters outside the backbone."""
    inside = _backbone_parameters(model)
    return [name for name, p in model.named_parameters() if p.requires_grad and id(p) not in inside]


def _backbone_parameters(model: nn.Module) -> set[int]:
    """Identities of the parameters of the backbone: all of a model without a head."""
    backbone = unwrap_peft(model) if is_backbone(model) else backbone_of(model)
    return {id(parameter) for parameter in backbone.parameters()}


def is_backbone(model: nn.Module) -> bool:
    """Whether the model returns hidden states and no task's outputs."""
    base = unwrap_peft(model)
    if hasattr(base.config, "text_config") and hasattr(base.config, "vision_config"):
        return False  # two towers, with an output each
    names = MODEL_MAPPING_NAMES.get(base.config.model_type, ())
    is_listed = type(base).__name__ in ((names,) if isinstance(names, str) else names)
    is_one = is_listed and not getattr(base.config, "is_encoder_decoder", False)
    has_parts = any(isinstance(child, PreTrainedModel) for child in base.children())
    return (is_one or not has_parts) and (not base.base_model_prefix or not hasattr(base, base.base_model_prefix))


def layer_indices(model: nn.Module) -> dict[str, int]:
    """How far below the head every trainable parameter of the backbone is, by name as in `model.named_parameters()`.

    The top layer is 1, the next 2, and what comes before all layers (the embeddings) the largest number. What stands
    between or behind layers, such as a last norm or a pooler, has the index of the layer before it.
    """
    backbone = unwrap_peft(model) if is_backbone(model) else backbone_of(model)
    layers = stacked_layers(backbone)
    numbers = {id(p): number for number, layer in enumerate(layers, start=1) for p in layer.parameters()}
    reached, indices = 0, {}
    for parameter in backbone.parameters():
        reached = numbers.get(id(parameter), reached)
        indices[id(parameter)] = len(layers) + 1 - reached
    return {name: indices[id(p)] for name, p in model.named_parameters() if p.requires_grad and id(p) in indices}


def flat(modules: Iterable[nn.Module]) -> Iterator[nn.Module]:
    """The members of a list, and in the place of a list among them, which no forward calls, its members."""
    for member in modules:
        if type(member) is nn.ModuleList:
            yield from flat(member)
        else:
            yield member


def stacked_layers(backbone: nn.Module) -> list[nn.Module]:
    """The layers (or stages) of a backbone from the inputs on: the members of its outermost lists of modules.

    An encoder-decoder has the decoder's layers behind the encoder's. Lists with less than a quarter of the largest
    one's parameters hold something else than layers; so do those of single operations, such as the convolutions and
    norms of a stem, where others are of modules with parts.
    """
    stacks: list[list[nn.Module]] = []
    inside: set[int] = set()
    for module in backbone.modules():
        if isinstance(module, (nn.ModuleList, nn.Sequential)) and id(module) not in inside:
            inside.update(id(part) for part in module.modules())
            stacks.append([member for member in flat(module) if any(True for _ in member.parameters())])
    with_parts = [stack for stack in stacks if any(next(member.children(), None) is not None for member in stack)]
    stacks = with_parts or stacks
    sizes = [sum(p.numel() for member in stack for p in member.parameters()) for stack in stacks]
    largest = max(sizes, default=0)
    return [member for stack, size in zip(stacks, sizes, strict=True) if 4 * size >= largest for member in stack]


class HeadInput:
    """Records the input of the last linear head of one forward pass, whichever module wraps that head.

        with head:
            logits = model(**inputs).logits
        features = head.take(logits, inputs.get("attention_mask"))

    All candidate heads are watched and the one that ran last counts, so that PEFT's copies of a head, of which only
    the active one runs, need no special case. The model carries hooks only inside the `with` block: before and after
    it can be copied, saved and watched by others, and no graph is kept.

    Args:
        model: a Hugging Face model or PEFT model with a linear head.

    Raises:
        ValueError: the model has no linear head.
    """

    def __init__(self, model: nn.Module):
        self._seen: tuple[Tensor, Tensor] | None = None
        self._is_checked = False
        self._heads = linear_heads(model)
        self._handles: list[RemovableHandle] = []

    def __enter__(self) -> HeadInput:
        self._seen = None
        self._handles = [head.register_forward_hook(self._remember) for head in self._heads]
        return self

    def __exit__(self, kind: type[BaseException] | None, *_) -> None:
        for handle in self._handles:
            handle.remove()
        self._handles.clear()
        if kind is not None:
            self._seen = None

    def _remember(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        self._seen = (inputs[0], output)

    def take(self, logits: Tensor, attention_mask: Tensor | None = None) -> Tensor:
        """Features [B, D] of the forward pass that gave `logits` [B, C]; forgets them afterwards.

        A decoder with a score head applies it to every token and then picks one: the token whose head output equals
        the logits is the one whose input counts, the last real one where several do.

        Raises:
            ValueError: the logits are not what one linear head gave for one token.
        """
        features, output = self.take_all()
        if output.ndim == 4 and output.shape[2:] == (1, 1):  # a 1x1 convolution on a pooled map
            features, output = features.flatten(1), output.flatten(1)
        if output.ndim == 3:
            rows = torch.arange(len(output), device=output.device)
            token = chosen_token(output.detach(), logits.detach(), attention_mask)
            features, output = features[rows, token], output[rows, token]
        self._check(output, logits)
        return features

    def take_all(self) -> tuple[Tensor, Tensor]:
        """Input and output of the head in the last forward pass, as they are; forgets them afterwards."""
        if self._seen is None:
            raise RuntimeError("the model's linear head did not run in the last forward pass.")
        seen, self._seen = self._seen, None
        return seen

    def _check(self, output: Tensor, logits: Tensor) -> None:
        # Comparing values waits for the device, so it is done once.
        if self._is_checked or output is logits:
            return
        close = output.shape == logits.shape and torch.allclose(output.float(), logits.float(), equal_nan=True)
        if not close:
            raise ValueError(
                "the model's logits are not the output of one linear head on one feature vector, so there are no "
                "features to read: use a model whose last layer is a single linear classifier."
            )
        self._is_checked = True


def chosen_token(output: Tensor, logits: Tensor, attention_mask: Tensor | None = None) -> Tensor:
    """Places [B] of the tokens whose head outputs [B, T, C] became the logits [B, C]; of equals the last real one.

    Args:
        output: [B, T, C].
        logits: [B, C].
        attention_mask: [B, T], or shorter where the model put virtual tokens in front.
    """
    length = output.shape[1]
    gap = (output - logits.to(output.dtype).unsqueeze(1)).abs().sum(dim=-1)
    rank = torch.arange(1, length + 1, device=output.device).expand_as(gap)
    if attention_mask is not None and attention_mask.ndim == 2:
        real = F.pad(attention_mask.bool(), (length - attention_mask.shape[1], 0), value=True)
        rank = rank + length * real
    return (rank * (gap == gap.amin(dim=1, keepdim=True))).argmax(dim=1)


def unsplit_classes(model: nn.Module) -> list[str]:
    """Names of the classes whose modules stay whole on one device, such as layers; those that the model has.

    accelerate asks a module for them as `_no_split_modules`: FSDP shards such modules one by one.
    """
    present = {type(module).__name__ for module in model.modules()}
    return sorted(present & set(getattr(unwrap_peft(model), "_no_split_modules", None) or ()))
