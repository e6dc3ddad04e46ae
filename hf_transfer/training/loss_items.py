"""Over how many items a task loss is a mean, so that every item counts the same in whichever batch or process it is.

    loss of all = sum_p n_p loss_p / sum_p n_p

Items are the labels that are known: classes of rows, of tokens or of pixels, numbers to predict. A model of this
package whose loss is a mean over something else counts it by a method `loss_items`: hidden steps of series, steps with
a next one, real steps of trajectories. Masked autoencoders hide as many patches of every row, and need no count.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from inspect import signature

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel
from transformers.loss.loss_utils import LOSS_MAPPING, ForCausalLMLoss

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.core.supervision import TaskLoss
from hf_transfer.modeling.anatomy import unwrap_peft
from hf_transfer.modeling.label_forms import DENSE_HEADS, ignored_class, label_form


class LossItems:
    """Counts the items of the batches of one training.

    Args:
        model: a Hugging Face or PEFT model.
        supervision: where the task loss comes from.
    """

    def __init__(self, model: PreTrainedModel | PeftModel, supervision: TaskLoss):
        base = unwrap_peft(model)
        self.are_counted = label_form(model).weighs_by_labels
        self.shifts_labels = supervision.asks_model and shifts_labels(base)
        self.own = getattr(base, "loss_items", None) if supervision.asks_model else None
        is_of_maps = supervision.asks_model and type(base).__name__.endswith(DENSE_HEADS)
        self.ignored = ignored_class(base.config) if is_of_maps else IGNORED_LABEL

    def count(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """The number of items of a batch, a scalar; None where batches need no count."""
        if self.own is not None:
            return self.own(**batch)
        labels = batch.get("labels")
        if labels is None or not self.are_counted:
            return None
        labels = labels[..., 1:] if self.shifts_labels else labels
        return (labels != self.ignored).sum()

    def total(self, batches: Iterable[Mapping[str, Tensor]], device: torch.device) -> Tensor | None:
        """The number of items of the batches of a step; None where these need no count."""
        counts = [self.count(batch) for batch in batches]
        known = [count.to(device) for count in counts if count is not None]
        return torch.stack(known).sum() if known and len(known) == len(counts) else None


def shifts_labels(model: PreTrainedModel) -> bool:
    """Whether the model's own loss predicts the next token, so that no row's first label counts."""
    # XLNet is told by a `target_mapping` which tokens its labels are
    if not model.can_generate() or "target_mapping" in signature(model.forward).parameters:
        return False
    loss = LOSS_MAPPING.get(getattr(model, "loss_type", None) or "ForCausalLM")
    return loss is ForCausalLMLoss and not getattr(model.config, "is_encoder_decoder", False)
