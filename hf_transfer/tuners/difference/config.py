"""Settings of difference tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar

from peft import PeftConfig
from peft.utils import PeftType

from hf_transfer.functional.keyword_checks import require_non_negative, require_positive


@dataclass
class DifferenceConfig(PeftConfig):
    """Settings of difference tuning, `peft_type: DIFFERENCE`.

    Args:
        share: of the adapted weights, the part that may change in the end; .005 as in the paper.
        bias_only: BitFit: every bias of the backbone may change, and nothing else; no gates, no projection.
        is_structured: one more gate a tensor, so that whole tensors can stay as they were.
        penalty: strength of the L0 penalty. It acts on the expected share of open gates, so that 10 on a model of
            10^8 weights is the paper's 1.25e-7 a weight, about.
        project_at: share of the training after which all but the largest changes are dropped; 1 drops them at the
            end, without training what is left any further.
        initial_log_alpha: log alpha of all gates at first; 5 as in the paper: open.
        gate_rate: how much faster than other weights gates learn under Adam: log alpha is this times its parameter.
        target_modules: names or a pattern of the layers whose weights and biases may change; left out, the linear
            layers and convolutions of the blocks, or with `bias_only` every layer of the backbone that has a bias.
        exclude_modules: names or a pattern of layers to leave alone.
        modules_to_save: further modules to train in full and save, such as the head.
        kept: written into the file of a sparse adapter and read from it: number of places that change, by tensor.

    Raises:
        ValueError: a value out of range.
    """

    paper: ClassVar[str] = "2012.07463"

    share: float = field(default=0.005, metadata={"help": "Part of the adapted weights that may change."})
    bias_only: bool = field(default=False, metadata={"help": "BitFit: biases alone, all of them."})
    is_structured: bool = field(default=False, metadata={"help": "One more gate a tensor."})
    penalty: float = field(default=10.0, metadata={"help": "Strength of the L0 penalty."})
    project_at: float = field(default=0.7, metadata={"help": "Share of the training before the projection."})
    initial_log_alpha: float = field(default=5.0, metadata={"help": "log alpha of the gates at first."})
    gate_rate: float = field(default=100.0, metadata={"help": "Learning rate of log alpha over that of weights."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers that may change."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Layers to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules trained in full and saved."})
    kept: dict[str, int] | None = field(default=None, metadata={"help": "Of a saved adapter; not to be given."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("DIFFERENCE")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        if isinstance(self.exclude_modules, list):
            self.exclude_modules = set(self.exclude_modules)
        require_positive(gate_rate=self.gate_rate)
        require_non_negative(penalty=self.penalty)
        for name in ("share", "project_at"):
            if not 0 < getattr(self, name) <= 1:
                raise ValueError(f"`{name}` should be in (0, 1], got {getattr(self, name)}.")

    def save_pretrained(self, save_directory: str, **kwargs: Any) -> None:
        """As every configuration's; `kept` is of the file alone and not of the next model made from this object."""
        super().save_pretrained(save_directory, **kwargs)
        self.kept = None
