"""Puts residual adapters into a model."""

from __future__ import annotations

from hf_transfer.tuners.residual.config import ResidualConfig
from hf_transfer.tuners.residual.layer import ResidualLayer
from hf_transfer.tuners.target_layers import closing_convolutions, output_layers, spatial_convolutions
from hf_transfer.tuners.tuner import Tuner


class ResidualModel(Tuner):
    """A model with residual adapters: `get_peft_model(model, ResidualConfig(r=16))`."""

    prefix = "residual_tuner_"
    tuner_layer_cls = ResidualLayer

    def default_targets(self, config: ResidualConfig) -> set[str]:
        """The linear layers that close attention and MLP blocks, or spatial convolutions, or closing ones."""
        return output_layers(self.model) or spatial_convolutions(self.model) or closing_convolutions(self.model)
