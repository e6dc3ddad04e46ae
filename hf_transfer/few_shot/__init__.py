"""Few-shot learning: metrics over a backbone's features, trained and evaluated on episodes."""

OBJECTIVES = {
    "matching": "hf_transfer.few_shot.matching:Matching",
    "prototypical": "hf_transfer.few_shot.prototypical:Prototypical",
}
"""Name -> "module:class", imported when asked for."""
