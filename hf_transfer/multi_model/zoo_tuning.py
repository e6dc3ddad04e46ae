"""Zoo-Tuning: every layer mixes its kernels in several pre-trained models of one architecture.

    W(x) = sum_e a_e(x) T_e W_e,   a(x) = sigmoid( W_2 relu( W_1 pool(x) ) + b )

W_e is the layer's kernel in source e, T_e a linear map of its output channels that starts as the identity, a(x) the
gates of the layer, of its own pooled input. Linear layers, convolutions and embeddings are mixed. All other weights of
the backbone start as the mean of the sources', and batch norms with moving statistics of mean 0 and variance 1. The
head is the model's own.

Lite: in training a is the mean of the gates over the batch, of all processes; in evaluation their moving average,
a_bar <- .9 a_bar + .1 a. Then one ordinary model is left, which is what a saved folder holds.

Paper: Shu et al., "Zoo-Tuning: Adaptive Transfer from a Zoo of Models", ICML 2021,
https://huggingface.co/papers/2106.15434. A squeeze to a quarter and .9 as in its released code. There gates start
near .5, so that their sum is E/2, which batch norm takes out; here all start at 1/E, so that a model without batch
norm starts as the mean of its sources. The moving average starts there too, where the released one starts at 0. The
mean of sources that learned unlike tasks may predict nothing, and a short training does not mend it: `own_share` .9
starts near the first source, of which a tenth is mixed with the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from transformers import AutoConfig, PreTrainedModel

from hf_transfer.core.converter import converts
from hf_transfer.modeling.anatomy import backbone_of, is_backbone, unwrap_peft
from hf_transfer.modeling.loading import check_complete, quiet_loading
from hf_transfer.modeling.surgery import Sidecar, keep_sidecar, modules_where, reclass, sidecars_of
from hf_transfer.models.revisions import at_revision
from hf_transfer.multi_model.members import check_finite, check_processors, told_when_unloadable
from hf_transfer.multi_model.zoo_layers import FORWARDS, Experts, ZooLayer
from hf_transfer.multi_model.zoo_tuned import ZooTuned

NAME = "zoo_tuning"


def mix(
    base: PreTrainedModel, states: Sequence[dict[str, Tensor]], lite: bool, align: bool, own_share: float | None = None
) -> Zoo:
    """Give every layer of the backbone the kernels of these states, in place; what was kept beside the model.

    Args:
        base: the model.
        states: tensors of the sources, first its own.
        lite: as `convert` takes it, like those that follow.

    Raises:
        ValueError: no layer is of a kind that can be mixed.
    """
    inside = inside_backbone(base)
    layers = {name: one for name, one in modules_where(base, is_mixed).items() if id(one) in inside}
    if not layers:
        raise ValueError(f"`{NAME}`: {type(base).__name__} has no linear layer, convolution or embedding to mix.")
    shares = shares_of(own_share, len(states))
    sidecar = Zoo({name: Experts(one, parts_of(states, name), lite, align, shares) for name, one in layers.items()})
    keep_sidecar(base, NAME, sidecar)
    average_rest(base, states, shares, inside, set(layers))
    for name, layer in layers.items():
        layer.requires_grad_(False)
        reclass(layer, ZooLayer, experts=sidecar.layers[safe(name)], sidecar=sidecar)
        layer.register_state_dict_pre_hook(fold_before_saving)
    base.register_forward_pre_hook(sidecar.remember, with_kwargs=True)
    return sidecar


def shares_of(own_share: float | None, sources: int) -> list[float]:
    """Of all sources at the start, which sum to 1: that of the first, and the others alike.

    Raises:
        ValueError: the share is not between 0 and 1.
    """
    own = 1 / sources if own_share is None else own_share
    if not 0 < own < 1:
        raise ValueError(f"`own_share` should be in (0, 1), got {own_share}.")
    return [own, *[(1 - own) / (sources - 1)] * (sources - 1)]


def inside_backbone(base: PreTrainedModel) -> set[int]:
    """Identities of the modules of the backbone."""
    return {id(module) for module in (base if is_backbone(base) else backbone_of(base)).modules()}


def fold(model: nn.Module) -> PreTrainedModel:
    """The ordinary model that a Lite one is in evaluation.

    Args:
        model: converted with `lite`.

    Raises:
        ValueError: it was not, or its kernels are each row's own.
    """
    base = unwrap_peft(model)
    if not zoo_of(base).is_lite:
        raise ValueError("kernels that depend on the row cannot be folded into one: convert with `lite: true`.")
    plain = type(base)(base.config)
    plain.load_state_dict(base.state_dict())
    return plain.eval()


def export(model: nn.Module) -> PreTrainedModel:
    """What a run saves: a Lite model is an ordinary one; another becomes a `ZooTuned` of the same tensors.

    Raises:
        ValueError: the model was not converted.
    """
    base = unwrap_peft(model)
    zoo = zoo_of(base)
    return model if zoo.is_lite else ZooTuned.of(base, zoo)


@converts(fold=fold, export=export)
def convert(
    model: nn.Module,
    *,
    checkpoints: Sequence[str],
    lite: bool = True,
    align: bool = True,
    own_share: float | None = None,
) -> nn.Module:
    """Give every layer of the backbone the kernels of several sources, in place; names of the weights stay.

    Args:
        model: a Hugging Face model with a head, itself the first source.
        checkpoints: folders or Hub ids of the others, of the same architecture and sizes, with any head.
        lite: gates of a batch instead of a row's own, so that one ordinary model is left. Without it a run saves a
            `ZooTuned`, as `export` makes it; what the converted model itself saves is the model at the average gates.
        align: learn T_e.
        own_share: gate of the model's own kernels at the start, in (0, 1); 1/E when left out.

    Raises:
        ValueError: no checkpoint, `own_share` out of its range, a checkpoint that cannot be loaded or has other sizes
            or was saved with another processor, or the model was converted before.
    """
    if isinstance(checkpoints, str) or not checkpoints:
        raise ValueError(f"`checkpoints` should be a list of at least one folder or Hub id, got {checkpoints!r}.")
    shares_of(own_share, 1 + len(checkpoints))  # refuses it before anything is loaded
    base = unwrap_peft(model)
    if NAME in sidecars_of(base):
        raise ValueError(f"this model was converted by `{NAME}` before.")
    names = [name for name, one in base.named_modules() if id(one) in inside_backbone(base)]
    check_processors(base, checkpoints)
    mix(
        base,
        [base.state_dict(), *(source_state(base, source, names) for source in checkpoints)],
        lite,
        align,
        own_share,
    )
    return model


convert.paper = "2106.15434"


class Zoo(Sidecar):
    """The experts of all layers, and what the model reads now: the mask of its rows, and which tensors are inputs."""

    def __init__(self, layers: dict[str, Experts]):
        super().__init__()
        self.layers = nn.ModuleDict({safe(name): experts for name, experts in layers.items()})
        self.mask: Tensor | None = None
        self.inputs: frozenset[int] = frozenset()

    @property
    def is_lite(self) -> bool:
        return all(experts.lite for experts in self.layers.values())

    def remember(self, module: nn.Module, args: tuple[Any, ...], inputs: dict[str, Any]) -> None:
        """Before every forward of the model: padding has no part in what gates read."""
        mask = inputs.get("attention_mask")
        self.mask = mask if isinstance(mask, Tensor) and mask.ndim == 2 else None
        self.inputs = frozenset(one.data_ptr() for one in (*args, *inputs.values()) if isinstance(one, Tensor))

    def are_inputs(self, ids: Tensor) -> bool:
        """Whether ids are an input of the model, or a view of one."""
        return ids.data_ptr() in self.inputs


def zoo_of(base: PreTrainedModel) -> Zoo:
    """What stands beside a converted model.

    Raises:
        ValueError: there is nothing.
    """
    if NAME not in sidecars_of(base):
        raise ValueError(f"this {type(base).__name__} was not converted by `{NAME}`.")
    return sidecars_of(base)[NAME]


def safe(name: str) -> str:
    """A module's name without dots, which names in a ModuleDict may not have."""
    return name.replace(".", "_")


def is_mixed(module: nn.Module) -> bool:
    """Whether a layer's kernels are mixed: subclasses may read their weights in their own way, and are averaged."""
    return type(module) in FORWARDS


def fold_before_saving(layer: nn.Module, *_: Any) -> None:
    layer.experts.folded_into(layer)


def parts_of(states: Sequence[dict[str, Tensor]], layer: str) -> list[dict[str, Tensor]]:
    """Weight and bias of one layer in every source."""
    parts = ("weight", "bias")
    return [{part: state[f"{layer}.{part}"] for part in parts if f"{layer}.{part}" in state} for state in states]


def source_state(base: PreTrainedModel, source: str, modules: Sequence[str]) -> dict[str, Tensor]:
    """The tensors of a checkpoint's backbone, by their names in the model.

    Args:
        base: the model in training.
        source: folder or Hub id.
        modules: names of the modules of the backbone.

    Raises:
        ValueError: as `loaded_as`, or it has other sizes; the first tensor that differs is named.
    """
    theirs, ours = loaded_as(base, source, modules, "checkpoints").state_dict(), base.state_dict()
    for name, value in ours.items():
        if name.rpartition(".")[0] in modules and (name not in theirs or theirs[name].shape != value.shape):
            other = list(theirs[name].shape) if name in theirs else "no such tensor"
            raise ValueError(
                f"kernels are mixed of models of the same sizes: `{name}` has shape {list(value.shape)} in the model "
                f"in training and {other} in `{source}`."
            )
    return theirs


def loaded_as(model: PreTrainedModel, source: str, modules: Sequence[str], keyword: str) -> PreTrainedModel:
    """A checkpoint with any head or none as a model of another one's class, which it shares an architecture with.

    Args:
        model: whose class it is.
        source: folder or Hub id.
        modules: names of the modules whose weights it has to have.
        keyword: that named it, for the error.

    Raises:
        ValueError: it cannot be loaded, is of another kind, or lacks weights.
    """
    with told_when_unloadable(source, keyword):
        folder, stored = at_revision(source)
        config = AutoConfig.from_pretrained(folder, **stored)
        if config.model_type != model.config.model_type:
            raise ValueError(f"it is a {config.model_type} and the model in training a {model.config.model_type}.")
        with quiet_loading():
            loaded, report = type(model).from_pretrained(
                folder,
                num_labels=model.config.num_labels,
                ignore_mismatched_sizes=True,
                output_loading_info=True,
                dtype="float32",
                **stored,
            )
        check_complete(loaded, [key for key in report["missing_keys"] if key.rpartition(".")[0] in modules])
        check_finite(loaded)
    return loaded


@torch.no_grad()
def average_rest(
    base: PreTrainedModel,
    states: Sequence[dict[str, Tensor]],
    shares: Sequence[float],
    inside: set[int],
    mixed: set[str],
) -> None:
    """The backbone's weights that are not mixed become the mean of the sources' by their shares at the start; moving
    statistics start anew."""
    for name, module in base.named_modules():
        if id(module) not in inside or name in mixed:
            continue
        for part, parameter in module.named_parameters(recurse=False):
            key = f"{name}.{part}" if name else part
            values = torch.stack([state[key].to(parameter) for state in states])
            parameter.copy_(torch.tensordot(torch.tensor(shares).to(parameter), values, dims=1))
        if isinstance(module, _BatchNorm):
            module.reset_running_stats()
