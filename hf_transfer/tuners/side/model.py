"""Puts a side network beside a model's backbone."""

from __future__ import annotations

from transformers import PreTrainedModel

from hf_transfer.modeling.anatomy import backbone_of
from hf_transfer.tuners.side.config import SideConfig
from hf_transfer.tuners.side.layer import SideLayer
from hf_transfer.tuners.tuner import Tuner


class SideModel(Tuner):
    """A model with a side network: `get_peft_model(model, SideConfig(side_layers=1))`."""

    prefix = "side_tuner_"
    tuner_layer_cls = SideLayer

    def default_targets(self, config: SideConfig) -> set[str]:
        """The backbone that the model names."""
        if not isinstance(self.model, PreTrainedModel):
            return set()
        backbone = backbone_of(self.model)
        return {name for name, module in self.model.named_modules() if module is backbone}
