"""A model that Zoo-Tuning without `lite` trained, as one folder: kernels of every row, and all their sources.

    W(x) = sum_e a_e(x) K_e,   K_e = T_e W_e

The alignments T_e are merged into the kernels, as they depend on no row. A forward of five EfficientNet-Lite0 takes
1.05 times the operations of one at 224 pixels and 1.6 times at 64; with alignments it would take 4.4 and 4.9 times.

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
        merged: whether the kernels hold their alignments, those of embeddings apart.
    """

    model_type = "zoo_tuned"

    sources: int = 2
    align: bool = True
    merged: bool = False


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
        if config.merged:
            self.merge_alignments()
        self.post_init()

    @classmethod
    def of(cls, model: PreTrainedModel, zoo: nn.Module) -> ZooTuned:
        """Of a converted model and what stands beside it; both become parts of the one that is made, with their
        alignments merged."""
        experts = next(iter(zoo.layers.values()))
        facts = {"sources": len(experts.kernels), "align": experts.alignment is not None, "merged": True}
        config = ZooTunedConfig(members=[member_settings(model)], **facts, **shared_settings([model]))
        with torch.device("meta"):  # the parts that it makes are replaced
            made = cls(config)
        made.members, made.zoo = nn.ModuleList([model]), zoo
        made.merge_alignments()
        return made.eval()

    def merge_alignments(self) -> None:
        for experts in self.zoo.layers.values():
            experts.merge_alignment()

    def logits_of(self, inputs: dict[str, Tensor]) -> Tensor:
        (member,) = self.members
        return member(**accepted_inputs(member, inputs)).logits
