"""How one training step goes: a single backward pass, or the phases of a method whose steps alternate.

A strategy is asked for by the objectives, so any family of trainers has both.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import AlternatingObjective, Phase

Backward = Callable[..., Tensor]
"""(model, inputs, number of labels) -> loss: the Trainer's own forward and backward pass of a batch."""


class PlainStep:
    """One forward and one backward pass a batch.

    Args:
        trainer: a TransferTrainer.
    """

    def __init__(self, trainer: Any):
        self.trainer = trainer

    def __call__(self, backward: Backward, model: nn.Module, *batch: Any) -> Tensor:
        """The loss of a batch, whose gradients are left for the Trainer to step on.

        Args:
            backward: one pass.
            model: as the Trainer wraps it.
            batch: what else `backward` takes.
        """
        return backward(model, *batch)


class AlternatingSteps(PlainStep):
    """All phases of a method on one batch, in their order, each as often as it says (MCD, ADDA, CycleGAN, CyCADA).

    A phase is forward, backward, clipping and a step of the optimizer, in which only the phase's parameters have
    gradients. There is one ordinary optimizer, whose state is kept by parameter: a parameter without a gradient is
    passed over, so that its moments wait for its next phase. A checkpoint is therefore that of any Trainer, and
    resuming is exact. The learning rate's schedule and `max_steps` count batches; the logged loss is the sum over the
    phases.

    Args:
        trainer: a TransferTrainer, one of whose objectives alternates; the others join the phases that learn the task.

    Raises:
        ValueError: gradients are accumulated over micro-batches (a phase would see only the last);
            `ddp_find_unused_parameters=False` (every phase leaves some unused); FSDP or DeepSpeed, whose parameters
            cannot stand still in turns.
    """

    def __init__(self, trainer: Any):
        super().__init__(trainer)
        args = trainer.args
        if args.gradient_accumulation_steps != 1:
            raise ValueError(
                "`gradient_accumulation_steps` should be 1 for a method whose steps alternate, got "
                f"{args.gradient_accumulation_steps}: use a larger batch."
            )
        if args.ddp_find_unused_parameters is False:
            raise ValueError("`ddp_find_unused_parameters` should not be False: every phase leaves some unused.")
        if trainer.is_fsdp_enabled or trainer.is_deepspeed_enabled:
            raise ValueError("a method whose steps alternate runs on one process or with DDP, not FSDP or DeepSpeed.")

    def __call__(self, backward: Backward, model: nn.Module, *batch: Any) -> Tensor:
        transfer_model = self.trainer.transfer_model
        method: AlternatingObjective = transfer_model.objectives[transfer_model.alternating]
        steps = [phase for phase in method.phases(transfer_model.progress) for _ in range(phase.steps)]
        total = torch.zeros((), device=self.trainer.args.device)
        for index, phase in enumerate(steps):
            if index:
                self._take_step(model)
            method.phase = phase
            with only_trains(transfer_model, phase):
                total += backward(model, *batch) / phase.steps
        return total

    def _take_step(self, model: nn.Module) -> None:
        """The optimizer's step between two phases; the Trainer itself takes the last one."""
        trainer = self.trainer
        if trainer.args.max_grad_norm > 0:
            trainer.accelerator.clip_grad_norm_(model.parameters(), trainer.args.max_grad_norm)
        trainer.optimizer.step()
        model.zero_grad()


def steps_for(trainer: Any) -> PlainStep:
    """The strategy that the objectives of a TransferTrainer ask for. Raises as the strategies do."""
    return PlainStep(trainer) if trainer.transfer_model.alternating is None else AlternatingSteps(trainer)


@contextmanager
def only_trains(model: Any, phase: Phase) -> Iterator[None]:
    """Within the block only the phase's parameters require a gradient, of those of a TransferModel that do.

    Raises:
        ValueError: none of the phase's parameters is trainable.
    """
    moving = identities(phase.parameters(model.model))
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    frozen = [parameter for parameter in trainable if id(parameter) not in moving]
    if len(frozen) == len(trainable):
        raise ValueError(f"phase `{phase.name}` has nothing to train: all of its parameters are frozen.")
    for parameter in frozen:
        parameter.requires_grad_(False)
    try:
        yield
    finally:
        for parameter in frozen:
            parameter.requires_grad_(True)


def identities(parameters: Iterable[nn.Parameter]) -> set[int]:
    return {id(parameter) for parameter in parameters}
