"""How a difference becomes sparse: the L0 penalty with its falling target, the projection, the report."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel, TrainerCallback
from transformers.utils import logging

from hf_transfer.tuners.difference.config import DifferenceConfig
from hf_transfer.tuners.difference.layer import DifferenceLayer, DifferenceTensor, SparseDifference

logger = logging.get_logger(__name__)


@dataclass(frozen=True)
class ChangedParameters:
    """How much of a model its active differences change.

    Args:
        changed: weights that differ from the pre-trained model's.
        adapted: weights of the layers that may change.
        total: weights of the whole model without adapters.
    """

    changed: int
    adapted: int
    total: int

    @property
    def share(self) -> float:
        """Changed over all weights of the model."""
        return self.changed / self.total

    def __str__(self) -> str:
        return (
            f"{self.changed:,} of {self.total:,} parameters changed ({self.share:.3%}; "
            f"{self.changed / max(1, self.adapted):.3%} of the adapted layers)"
        )


def active_tensors(model: nn.Module) -> list[DifferenceTensor | SparseDifference]:
    """The differences of the active adapters."""
    layers = [module for module in model.modules() if isinstance(module, DifferenceLayer)]
    return [
        tensor
        for layer in layers
        for name in layer.active_adapters
        if name in layer.difference_tuner_tensors
        for tensor in layer.difference_tuner_tensors[name].values()
    ]


def sought_tensors(model: nn.Module) -> list[DifferenceTensor]:
    """Those in training whose places are still to be found."""
    tensors = active_tensors(model)
    return [one for one in tensors if one.is_gated and not one.is_projected and one.delta.requires_grad]


def target_share(config: DifferenceConfig, progress: float) -> float:
    """Share of gates that may be open: cubic from 1 at the start to `share` half way to the projection.

    target = share + (1 - share) (1 - p)^3,   p = min(1, progress / (project_at / 2))
    """
    passed = min(1.0, 2 * progress / config.project_at)
    return config.share + (1 - config.share) * (1 - passed) ** 3


def sparsity_penalty(model: nn.Module, progress: float) -> Tensor | None:
    """penalty * max(0, E ||z||_0 / n - target(progress)), a scalar; None when no gates are in training.

    A training loop of one's own adds it to its loss. `DifferenceCallback` does it in every Trainer.

    Args:
        model: a model with a difference adapter, wrapped or not.
        progress: share of the training done, in [0, 1].
    """
    tensors = sought_tensors(model)
    if not tensors:
        return None
    config = tensors[0].config
    share = sum(tensor.expected_count() for tensor in tensors) / sum(tensor.size for tensor in tensors)
    return config.penalty * torch.relu(share - target_share(config, progress))


@torch.no_grad()
def project(model: nn.Module, share: float | None = None) -> ChangedParameters:
    """Keep the largest |z * delta| of all adapted tensors together, drop the rest and the gates.

    What is kept can be trained further. From here on the adapter is saved sparse.

    Args:
        model: a model with a difference adapter.
        share: of the adapted weights to keep, in (0, 1]; the configuration's if left out.

    Raises:
        ValueError: `share` is out of range, or no active adapter is left to be projected.
    """
    tensors = [tensor for tensor in active_tensors(model) if tensor.is_gated and not tensor.is_projected]
    if not tensors:
        raise ValueError("no active difference adapter with gates: nothing to project.")
    share = tensors[0].config.share if share is None else share
    if not 0 < share <= 1:
        raise ValueError(f"`share` should be in (0, 1], got {share}.")
    sizes = [tensor.size for tensor in tensors]
    magnitudes = torch.cat([tensor.difference().abs().flatten() for tensor in tensors])
    kept = torch.zeros(len(magnitudes), dtype=torch.bool, device=magnitudes.device)
    kept[magnitudes.topk(max(1, round(share * len(magnitudes)))).indices] = True
    for tensor, mask in zip(tensors, kept.split(sizes), strict=True):
        tensor.keep(mask.view_as(tensor.delta))
    return changed_parameters(model)


@torch.no_grad()
def changed_parameters(model: nn.Module) -> ChangedParameters:
    """Count what the active differences change; a head that is trained in full is not counted."""
    tensors = active_tensors(model)
    # a training wrapper may hold a teacher, too
    base = next((module for module in model.modules() if isinstance(module, PreTrainedModel)), model)
    added = ("modules_to_save.", "difference_tuner_tensors.")
    return ChangedParameters(
        changed=sum(int((tensor.difference() != 0).sum()) for tensor in tensors),
        adapted=sum(tensor.size for tensor in tensors),
        total=sum(one.numel() for name, one in base.named_parameters() if not any(part in name for part in added)),
    )


class DifferenceCallback(TrainerCallback):
    """Sparsifies the differences of the model in training: `Trainer(..., callbacks=[DifferenceCallback()])`.

    Before every optimizer step it adds the gradient of the penalty to that of the gates, once however many batches
    are accumulated and however many processes take part; at `project_at` it projects. Gradients should be unscaled
    by then: with float16 that takes the Trainer's gradient clipping, with float32 or bfloat16 nothing.
    `TransferTrainer` has it without being asked.

    Several processes draw their gates from torch's own generator, which the Trainer seeds alike on all. Without
    dropout they draw what one process draws for the batches of all, and end where it ends. With dropout the draws
    differ from that one's, and with batches of different lengths from each other's: gradients are then averaged over
    several draws, and all processes still hold the same weights and keep the same places.
    """

    def on_pre_optimizer_step(self, args, state, control, model=None, **kwargs):
        penalty = sparsity_penalty(model, state.global_step / max(1, state.max_steps))
        if penalty is None:
            return
        gates = [gate for tensor in sought_tensors(model) for gate in tensor.gates()]
        for gate, gradient in zip(gates, torch.autograd.grad(penalty, gates), strict=True):
            gate.grad = gradient if gate.grad is None else gate.grad.add_(gradient)

    def on_step_end(self, args, state, control, model=None, **kwargs):
        tensors = sought_tensors(model)
        if tensors and state.global_step >= tensors[0].config.project_at * state.max_steps:
            logger.info(str(project(model)))

    def on_train_end(self, args, state, control, model=None, **kwargs):
        # The best checkpoint may be from before the projection.
        if sought_tensors(model):
            logger.info(str(project(model)))
