"""Pre-training objectives."""

OBJECTIVES = {
    "irm": "hf_transfer.pretraining.irm:IRM",
}
"""Name -> "module:class", imported when asked for."""
