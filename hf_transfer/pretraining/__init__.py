"""Pre-training objectives."""

OBJECTIVES: dict[str, str] = {
    "clip": "hf_transfer.pretraining.clip:CLIP",
    "siglip": "hf_transfer.pretraining.siglip:SigLIP",
}
"""Name -> "module:class", imported when asked for."""

CONVERTERS: dict[str, str] = {
    "lit": "hf_transfer.pretraining.lit:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""

SAMPLERS: dict[str, str] = {
    "dat": "hf_transfer.pretraining.dat_weights:dat_weights",
}
"""Which rows are seen, by name as "module:function"."""
