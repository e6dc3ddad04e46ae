"""Resting layers: parameters of the backbone that schedules keep as they are for a part of the training."""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn

from hf_transfer.modeling.anatomy import layer_indices
from hf_transfer.task_adaptation.schedule import Schedule


class LayerFreezing:
    """Lets the layers rest that any of the schedules says should.

    A frozen parameter gets no gradient, so the optimizer passes it over: no step, no weight decay, no moments. On one
    process it is left out of the backward pass, which costs less. Under several processes DistributedDataParallel
    waits for the gradients of all parameters it was given, so they are computed and dropped.

    Args:
        model: the Hugging Face model or PEFT model in training.
        schedules: who says which layers rest.
        skips_backward: whether frozen parameters may be left out of the backward pass.
    """

    def __init__(self, model: nn.Module, schedules: Sequence[Schedule], skips_backward: bool):
        self.schedules = schedules
        self.skips_backward = skips_backward
        self.indices: dict[nn.Parameter, int] = {}
        self.batch_norms: list[nn.Module] = []
        if schedules:
            indices = layer_indices(model)
            self.indices = {p: indices[name] for name, p in model.named_parameters() if name in indices}
            self.batch_norms = [m for m in model.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        self.deepest = max(self.indices.values(), default=1)
        self.frozen: set[nn.Parameter] = set()

    def update(self, progress: float) -> list[nn.Module]:
        """Let layers rest or train as the progress says.

        Returns:
            The batch norms all of whose parameters rest: their statistics should rest too.
        """
        is_frozen = {
            index: any(one.is_frozen(index, self.deepest, progress) for one in self.schedules)
            for index in set(self.indices.values())
        }
        self._freeze({parameter for parameter, index in self.indices.items() if is_frozen[index]})
        affine = [(module, list(module.parameters())) for module in self.batch_norms]
        return [module for module, own in affine if own and self.frozen.issuperset(own)]

    def end(self) -> None:
        """Every layer may train again."""
        self._freeze(set())

    def _freeze(self, frozen: set[nn.Parameter]) -> None:
        if self.skips_backward:
            for parameter in self.frozen ^ frozen:
                parameter.requires_grad_(parameter not in frozen)
        self.frozen = frozen

    def drop_gradients(self) -> None:
        """Forget the gradients of frozen parameters; call it after every backward pass."""
        for parameter in self.frozen:
            parameter.grad = None
