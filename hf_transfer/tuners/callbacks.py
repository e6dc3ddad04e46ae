"""What the adapters of a model want done between training steps."""

from __future__ import annotations

from torch import nn
from transformers import TrainerCallback

from hf_transfer.tuners.difference.layer import DifferenceTensor
from hf_transfer.tuners.difference.sparsity import DifferenceCallback


def adapter_callbacks(model: nn.Module) -> list[TrainerCallback]:
    """Callbacks for the trainer of a model with our adapters; most need none. `TransferTrainer` adds them itself."""
    has_gates = any(isinstance(module, DifferenceTensor) and module.is_gated for module in model.modules())
    return [DifferenceCallback()] if has_gates else []
