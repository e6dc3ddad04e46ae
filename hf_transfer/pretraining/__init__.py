"""Pre-training objectives, and the pure functions they are made of."""

from hf_transfer.pretraining.blocks.info_nce import info_nce
from hf_transfer.pretraining.dat import dat_weights
from hf_transfer.pretraining.lejepa import sigreg

OBJECTIVES: dict[str, str] = {
    "clip": "hf_transfer.pretraining.clip:CLIP",
    "label_sets": "hf_transfer.pretraining.label_sets:LabelSets",
    "lejepa": "hf_transfer.pretraining.lejepa:LeJEPA",
    "moco": "hf_transfer.pretraining.moco:MoCo",
    "moco_v3": "hf_transfer.pretraining.moco_v3:MoCoV3",
    "siglip": "hf_transfer.pretraining.siglip:SigLIP",
    "simclr": "hf_transfer.pretraining.simclr:SimCLR",
    "simsiam": "hf_transfer.pretraining.simsiam:SimSiam",
}
"""Name -> "module:class", imported when asked for."""

CONVERTERS: dict[str, str] = {
    "bit": "hf_transfer.pretraining.bit:convert",
    "lit": "hf_transfer.pretraining.lit:convert",
}
"""Changes of the model, by name as "module:function"; see hf_transfer/training/converters.py."""

SAMPLERS: dict[str, str] = {
    "dat": "hf_transfer.pretraining.dat:dat_weights",
}
"""Which rows are seen, by name as "module:function"."""

__all__ = ["CONVERTERS", "OBJECTIVES", "SAMPLERS", "dat_weights", "info_nce", "sigreg"]
