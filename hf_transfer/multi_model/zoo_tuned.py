"""A model that Zoo-Tuning without `lite` trained, as one folder: kernels of every row, and all their sources.

    W(x) = sum_e a_e(x) T_e W_e

Paper: Shu et al., "Zoo-Tuning: Adaptive Transfer from a Zoo of Models", ICML 2021,
https://huggingface.co/papers/2106.15434.
"""

from __future__ import annotations

import torch
from huggingface_hub.dataclasses import strict
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.core.registry import registered
from hf_transfer.multi_model.composite import (
    CompositeConfig,
    CompositeModel,
    accepted_inputs,
    member_settings,
    shared_settings,
)

CONVERTER = {"mix": "hf_transfer.multi_model.zoo_tuning:mix"}
"""Imported when a model is made: transformers knows this class from its own import on; the converter needs PEFT."""


@strict
class ZooTunedConfig(CompositeConfig):
    """Configuration of the architecture, and how its layers are mixed.

    Args:
        members: that of the architecture alone, see CompositeConfig.
        sources: E, how many pre-trained models every layer mixes.
        align: whether channels are aligned.
    """

    model_type = "zoo_tuned"

    sources: int = 2
    align: bool = True


class ZooTuned(CompositeModel):
    """A model whose layers mix the kernels of several sources for every row.

    `hf_transfer.multi_model.zoo_tuning.export` makes one of a converted model.
    """

    config_class = ZooTunedConfig

    def __init__(self, config: ZooTunedConfig):
        super().__init__(config)
        mix = registered(CONVERTER, "mix", "part")
        member = self.members[0]
        self.zoo = mix(member, [member.state_dict()] * config.sources, False, config.align)
        self.post_init()

    @classmethod
    def of(cls, model: PreTrainedModel, zoo: nn.Module) -> ZooTuned:
        """Of a converted model and what stands beside it; both become parts of the one that is made."""
        experts = next(iter(zoo.layers.values()))
        facts = {"sources": len(experts.kernels), "align": experts.alignment is not None}
        config = ZooTunedConfig(members=[member_settings(model)], **facts, **shared_settings([model]))
        with torch.device("meta"):  # the parts that it makes are replaced
            made = cls(config)
        made.members, made.zoo = nn.ModuleList([model]), zoo
        return made.eval()

    def logits_of(self, inputs: dict[str, Tensor]) -> Tensor:
        (member,) = self.members
        return member(**accepted_inputs(member, inputs)).logits
