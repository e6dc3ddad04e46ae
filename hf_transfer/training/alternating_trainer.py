"""AlternatingTrainer: domain adaptation by a method whose steps alternate."""

from __future__ import annotations

from typing import Any

from hf_transfer.core.objective import AlternatingObjective
from hf_transfer.training.family_trainers import DomainAdaptationTrainer
from hf_transfer.training.steps import only_trains as only_trains


class AlternatingTrainer(DomainAdaptationTrainer):
    """A DomainAdaptationTrainer that is sure of a method whose steps alternate (MCD, ADDA, CycleGAN, CyCADA).

    Every family trains such methods, see `hf_transfer.training.steps.AlternatingSteps`; this one refuses to train
    without.

    Args:
        model: a Hugging Face model with a linear head, or a PEFT model around one.
        args: TransferConfig.
        kwargs: everything else DomainAdaptationTrainer takes; exactly one of `objectives` alternates.

    Raises:
        ValueError: no objective alternates; all that DomainAdaptationTrainer and AlternatingSteps raise.
    """

    def __init__(self, model: Any, args: Any, **kwargs: Any):
        super().__init__(model, args, **kwargs)
        if self.transfer_model.alternating is None:
            raise ValueError(
                'none of the objectives alternates: use DomainAdaptationTrainer, or name one such as {"mcd": {}}.'
            )

    @property
    def method(self) -> AlternatingObjective:
        """The objective whose steps alternate."""
        return self.transfer_model.objectives[self.transfer_model.alternating]
