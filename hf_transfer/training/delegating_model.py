"""DelegatingModel: what the Trainer and accelerate ask of a model, answered by the Hugging Face model inside."""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from hf_transfer.modeling.anatomy import unsplit_classes, unwrap_peft


class DelegatingModel(nn.Module):
    """A module around `model`, which the Trainer takes for a model."""

    model: Any

    @property
    def config(self):
        return self.model.config

    @property
    def device(self) -> torch.device:
        return next(self.model.parameters()).device

    @property
    def main_input_name(self) -> str:
        return unwrap_peft(self.model).main_input_name

    def get_input_embeddings(self) -> nn.Module:
        """What `neftune_noise_alpha` adds noise to."""
        return self.model.get_input_embeddings()

    _no_split_modules = property(lambda self: unsplit_classes(self.model))

    def activation_checkpointing_enable(self, *args, **kwargs) -> None:
        self.model.activation_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_enable(self, *args, **kwargs) -> None:
        self.model.gradient_checkpointing_enable(*args, **kwargs)

    def gradient_checkpointing_disable(self) -> None:
        self.model.gradient_checkpointing_disable()
