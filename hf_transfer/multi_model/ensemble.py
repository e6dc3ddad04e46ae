"""Ensemble: the weighted mean of the predictions of several models, as one model.

    softmax(z(x)) = sum_k w_k softmax(z_k(x)),   sum_k w_k = 1

so that the logits z are those of an ordinary classifier. Of a model of several labels the same holds of sigmoids; of a
regression z = sum_k w_k z_k.

Paper: Dietterich, "Ensemble Methods in Machine Learning", 2000, https://doi.org/10.1007/3-540-45014-9_1. Weights are
alike when left out; `greedy_ensemble` chooses them on held-out rows.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import field

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor
from transformers import PreTrainedModel

from hf_transfer.functional.soft_targets import mean_logits
from hf_transfer.multi_model.composite import (
    CompositeConfig,
    CompositeModel,
    accepted_inputs,
    member_settings,
    shared_settings,
)


@strict
class EnsembleConfig(CompositeConfig):
    """Configurations of the members, and their weights.

    Args:
        members: see CompositeConfig.
        weights: one a member, which sum to 1.
    """

    model_type = "ensemble"

    weights: list[float] | tuple[float, ...] = field(default_factory=list)

    def validate_architecture(self):
        """As many weights as members, and they are shares."""
        if len(self.weights) != len(self.members):
            raise ValueError(f"`weights` should be one for each of {len(self.members)} members, got {self.weights}.")
        if self.members and (min(self.weights) <= 0 or abs(sum(self.weights) - 1) > 1e-6):
            raise ValueError(f"`weights` should be positive and sum to 1, got {self.weights}.")


class Ensemble(CompositeModel):
    """The weighted mean of the members' predictions.

    `Ensemble.of(load_members([FOLDER, FOLDER]))` makes one; `save_pretrained` writes it and its members as one folder,
    which `Ensemble.from_pretrained` and the Auto classes of its task load.
    """

    config_class = EnsembleConfig

    def __init__(self, config: EnsembleConfig):
        super().__init__(config)
        self.post_init()

    @classmethod
    def of(cls, models: Sequence[PreTrainedModel], weights: Sequence[float] | None = None) -> Ensemble:
        """An ensemble of models; those of weight 0 are left out.

        Args:
            models: classifiers or regressions with the same labels, which read the same inputs. They become the
                members themselves.
            weights: one a model, at least 0; their shares count. All alike when left out.

        Raises:
            ValueError: models that do not fit together, or weights that are not theirs.
        """
        weights = [1.0] * len(models) if weights is None else [float(one) for one in weights]
        if len(weights) != len(models) or any(one < 0 for one in weights) or (weights and not sum(weights)):
            raise ValueError(
                f"`weights` should be a number of at least 0 for each of {len(models)} models, and not all 0, got "
                f"{weights}."
            )
        chosen = [(model, one / sum(weights)) for model, one in zip(models, weights, strict=True) if one]
        settings = shared_settings([model for model, _ in chosen])
        members = [member_settings(model) for model, _ in chosen]
        config = EnsembleConfig(members=members, weights=[share for _, share in chosen], **settings)
        with torch.device("meta"):  # the members that it makes are replaced
            made = cls(config)
        made.members = torch.nn.ModuleList(model for model, _ in chosen)
        return made.eval()

    def logits_of(self, inputs: dict[str, Tensor]) -> Tensor:
        logits = [member(**accepted_inputs(member, inputs)).logits.float() for member in self.members]
        return mean_logits(logits, torch.tensor(self.config.weights), problem_type=self.config.problem_type)
