"""Where fine-tuned models of one start differ from it: theta_k - theta_0, of every parameter of the backbone.

Heads are no part of it, for where the start has none for the task they are drawn anew; nor are the moving statistics
of batch norms, whose variances have to stay positive. What merges models by their task vectors averages both.
"""

from __future__ import annotations

from torch import Tensor
from transformers import PreTrainedModel

from hf_transfer.multi_model.soup import in_float32
from hf_transfer.multi_model.zoo_tuning import inside_backbone, loaded_as


def start_of(model: PreTrainedModel, base: str | PreTrainedModel) -> dict[str, Tensor]:
    """The parameters of the start's backbone in float32, by their names in a model that was fine-tuned from it.

    Args:
        model: a fine-tuned one.
        base: what it was fine-tuned from, with any head or none.

    Raises:
        ValueError: it cannot be loaded, or a parameter of the backbone is missing or has another shape.
    """
    inside = inside_backbone(model)
    modules = {name for name, one in model.named_modules() if id(one) in inside}
    theirs = (loaded_as(model, base, sorted(modules), "base") if isinstance(base, str) else base).state_dict()
    own = {name: value for name, value in model.named_parameters() if name.rpartition(".")[0] in modules}
    for name, value in own.items():
        found = f"shape {list(theirs[name].shape)}" if name in theirs else "no such tensor"
        if name not in theirs or theirs[name].shape != value.shape:
            raise ValueError(
                f"task vectors are of models of one architecture and sizes: `{name}` has shape {list(value.shape)} in "
                f"the fine-tuned models and {found} in `base`."
            )
    return in_float32({name: theirs[name].to(value.device) for name, value in own.items()})
