"""Pre-training objectives, and the pure functions they are made of."""

from hf_transfer.pretraining.blocks.info_nce import info_nce
from hf_transfer.pretraining.lejepa import sigreg

OBJECTIVES: dict[str, str] = {
    "lejepa": "hf_transfer.pretraining.lejepa:LeJEPA",
    "moco": "hf_transfer.pretraining.moco:MoCo",
    "moco_v3": "hf_transfer.pretraining.moco_v3:MoCoV3",
    "simclr": "hf_transfer.pretraining.simclr:SimCLR",
    "simsiam": "hf_transfer.pretraining.simsiam:SimSiam",
}
"""Name -> "module:class", imported when asked for."""

__all__ = ["OBJECTIVES", "info_nce", "sigreg"]
