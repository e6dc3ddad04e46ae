"""PEFT tuners of the field that PEFT lacks: residual adapters, difference tuning (with BitFit) and side-tuning."""

from hf_transfer.tuners.callbacks import adapter_callbacks
from hf_transfer.tuners.registration import register_tuners

TUNERS = {
    "residual": "hf_transfer.tuners.residual:ResidualConfig",
    "difference": "hf_transfer.tuners.difference:DifferenceConfig",
    "side": "hf_transfer.tuners.side:SideConfig",
}
"""Name (PEFT's `peft_type` in lower case) -> "module:config class"."""

__all__ = ["TUNERS", "adapter_callbacks", "register_tuners"]
