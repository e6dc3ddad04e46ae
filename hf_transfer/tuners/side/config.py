"""Settings of side-tuning."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import ClassVar

from peft import PeftConfig
from peft.utils import PeftType

from hf_transfer.functional.keyword_checks import require_positive


@dataclass
class SideConfig(PeftConfig):
    """Settings of side-tuning, `peft_type: SIDE`.

    Args:
        side_layers: layers of the backbone that the side network keeps (in a conv net, of every stage).
        initial_alpha: share of the backbone's features at first, in (0, 1); .5 as in the paper.
        target_modules: name of the backbone; left out, the one that the model itself names.
        exclude_modules: names of modules to leave alone.
        modules_to_save: further modules to train in full and save, such as the head.

    Raises:
        ValueError: a value out of range.
    """

    paper: ClassVar[str] = "1912.13503"

    side_layers: int = field(default=1, metadata={"help": "Layers that the side network keeps."})
    initial_alpha: float = field(default=0.5, metadata={"help": "Share of the backbone's features at first."})
    target_modules: list[str] | str | None = field(default=None, metadata={"help": "The backbone's name."})
    exclude_modules: list[str] | str | None = field(default=None, metadata={"help": "Modules to leave alone."})
    modules_to_save: list[str] | None = field(default=None, metadata={"help": "Modules trained in full and saved."})

    def __post_init__(self):
        super().__post_init__()
        self.peft_type = PeftType("SIDE")
        if isinstance(self.target_modules, list):
            self.target_modules = set(self.target_modules)
        require_positive(side_layers=self.side_layers)
        if not 0 < self.initial_alpha < 1:
            raise ValueError(f"`initial_alpha` should be in (0, 1), got {self.initial_alpha}.")
