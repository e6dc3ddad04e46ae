"""Small pure tensor functions shared by several methods."""

from hf_transfer.functional.entropy import certainty_weights, prediction_entropy
from hf_transfer.functional.gradient_reversal import gradient_reversal, warm_start_coefficient

__all__ = ["certainty_weights", "gradient_reversal", "prediction_entropy", "warm_start_coefficient"]
