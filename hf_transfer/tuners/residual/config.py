"""Settings of residual adapters."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from peft import PeftConfig
from peft.utils import PeftType
from transformers.activations import ACT2FN

from hf_transfer.functional.keyword_checks import require_positive, require_share

PLACEMENTS = ("serial", "parallel")


@dataclass
class ResidualConfig(PeftConfig):
    """Settings of residual adapters, `peft_type: RESIDUAL`.

    Args:
        r: width of the bottleneck; 64 in Houlsby et al. for BERT of width 768 to 1024.
        placement: "serial" reads the output of the adapted layer, "parallel" its input.
        non_linearity: name of an activation of transformers; None makes an adapter that can be merged, and then it
            has no biases.
        scaling: s, factor of the adapter's output.
        dropout: of the adapter's input, in [0, 1).
        kronecker_terms: n of Compacter, which should divide the layer's widths and `r`; None for full matrices.
        target_modules: names or a pattern of the layers to adapt; left out, the linear layers that close attention
            and MLP blocks, and in a conv net its spatial convolutions, or where these are separable the convolutions
            that close the blocks.
        exclude_modules: names or a pattern of layers to leave alone.
        modules_to_save: further modules to train in full and save, such as the head.

    Raises:
        ValueError: a value out of range or unknown.
    """

    paper: ClassVar[str] = "1902.00751"

    r: int = field(default=16, metadata={"help": "Width of the bottleneck."})
    placement: str = field(default="serial", metadata={"help": "`serial` or `parallel`."})
    non_linearity: str | None = field(default="gelu", metadata={"help": "An activation; None can be merged."})
    scaling: float = field(default=1.0, metadata={"help": "Factor of the adapter's output."})
    dropout: float = field(default=0.0, metadata={"help": "Dropout of the adapter's input."})
    kronecker_terms: int | None = field(default=None, metadata={"help": "n of Compacter; None for full matrices."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to adapt."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules trained in full and saved."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("RESIDUAL")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        require_positive(r=self.r, scaling=self.scaling)
        require_share(dropout=self.dropout)
        if self.kronecker_terms is not None:
            require_positive(kronecker_terms=self.kronecker_terms)
        if self.placement not in PLACEMENTS:
            raise ValueError(f"`placement` should be one of {list(PLACEMENTS)}, got {self.placement!r}.")
        if self.non_linearity is not None and self.non_linearity not in ACT2FN:
            raise ValueError(
                f"`non_linearity` should be an activation of transformers, got {self.non_linearity!r}; known: "
                f"{sorted(ACT2FN)}."
            )
