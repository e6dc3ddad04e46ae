"""Few-shot learning on episodes: metrics over features, and starting weights that adapt in a few steps."""

METRICS = {
    "matching": "hf_transfer.few_shot.matching:Matching",
    "prototypical": "hf_transfer.few_shot.prototypical:Prototypical",
}
"""Metrics over features, which classify an episode without a step of training."""
META_LEARNING = {
    "maml": "hf_transfer.few_shot.maml:MAML",
    "reptile": "hf_transfer.few_shot.reptile:Reptile",
}
"""Starting weights, which a few steps of training adapt to an episode."""
OBJECTIVES = {**METRICS, **META_LEARNING}
"""Name -> "module:class", imported when asked for."""
