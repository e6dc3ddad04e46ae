"""AlternatingTrainer: methods whose steps alternate between groups of parameters with losses of their own."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import AlternatingObjective, Phase
from hf_transfer.training.family_trainers import DomainAdaptationTrainer


class AlternatingTrainer(DomainAdaptationTrainer):
    """Domain adaptation by a method whose steps alternate (MCD, ADDA, CycleGAN, CyCADA).

    One training step is one batch, on which all phases of the method run in their order, each as often as it says:
    forward, backward, clipping and a step of the optimizer, in which only the phase's parameters have gradients. There
    is one ordinary optimizer, whose state is kept by parameter: a parameter without a gradient is passed over, so
    that its moments wait for its next phase. A checkpoint is therefore that of any Trainer, and resuming is exact. The
    learning rate's schedule and `max_steps` count batches; the logged loss is the sum over the phases.

    Args:
        model: a Hugging Face model with a linear head, or a PEFT model around one.
        args: TransferConfig.
        kwargs: everything else DomainAdaptationTrainer takes; exactly one of `objectives` alternates, the others join
            the phases that learn the task.

    Raises:
        ValueError: no objective alternates; gradients are accumulated over micro-batches (a phase would see only the
            last); `ddp_find_unused_parameters=False` (every phase leaves some unused); FSDP or DeepSpeed, whose
            parameters cannot stand still in turns; all that DomainAdaptationTrainer raises.
    """

    alternates = True

    def __init__(self, model: Any, args: Any, **kwargs: Any):
        super().__init__(model, args, **kwargs)
        if self.transfer_model.alternating is None:
            raise ValueError(
                'none of the objectives alternates: use DomainAdaptationTrainer, or name one such as {"mcd": {}}.'
            )
        if self.args.gradient_accumulation_steps != 1:
            raise ValueError(
                "`gradient_accumulation_steps` should be 1 for a method whose steps alternate, got "
                f"{self.args.gradient_accumulation_steps}: use a larger batch."
            )
        if self.args.ddp_find_unused_parameters is False:
            raise ValueError("`ddp_find_unused_parameters` should not be False: every phase leaves some unused.")
        if self.is_fsdp_enabled or self.is_deepspeed_enabled:
            raise ValueError("a method whose steps alternate runs on one process or with DDP, not FSDP or DeepSpeed.")

    @property
    def method(self) -> AlternatingObjective:
        """The objective whose steps alternate."""
        return self.transfer_model.objectives[self.transfer_model.alternating]

    def training_step(
        self, model: nn.Module, inputs: dict[str, Any], num_items_in_batch: Tensor | int | None = None
    ) -> Tensor:
        """All phases on one batch; the Trainer itself takes the last step."""
        phases = self.method.phases(self.transfer_model.progress)
        steps = [phase for phase in phases for _ in range(phase.steps)]
        total = torch.zeros((), device=self.args.device)
        for place, phase in enumerate(steps):
            if place:
                self._take_step(model)
            self.method.phase = phase
            with only_trains(self.transfer_model, phase):
                total += super().training_step(model, inputs, num_items_in_batch) / phase.steps
        return total

    def _take_step(self, model: nn.Module) -> None:
        if self.args.max_grad_norm > 0:
            self.accelerator.clip_grad_norm_(model.parameters(), self.args.max_grad_norm)
        self.optimizer.step()
        model.zero_grad()


@contextmanager
def only_trains(model: Any, phase: Phase) -> Iterator[None]:
    """Within the block only the phase's parameters require a gradient, of those of a TransferModel that do.

    Raises:
        ValueError: none of the phase's parameters is trainable.
    """
    moving = identities(phase.parameters(model.model))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    resting = [parameter for parameter in trainable if id(parameter) not in moving]
    if len(resting) == len(trainable):
        raise ValueError(f"phase `{phase.name}` has nothing to train: all of its parameters are frozen.")
    for parameter in resting:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in resting:
            parameter.requires_grad_(True)


def identities(parameters: Iterable[nn.Parameter]) -> set[int]:
    return {id(parameter) for parameter in parameters}
