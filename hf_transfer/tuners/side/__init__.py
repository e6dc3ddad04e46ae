"""Side-tuning: a frozen backbone and a small network beside it, blended where the head reads.

    R(x) = a B(x) + (1 - a) S(x),   a = sigmoid(learned number), one half at first

B is the backbone, which never runs backwards. S takes the same inputs: a copy of the backbone with the first
`side_layers` of its layers alone (in a conv net, of every stage), reading B's frozen embedding tables. The last hidden
states are blended, and the pooled output where there is one; so it works for text, images, time series alike.

Paper: Zhang et al., ECCV 2020, https://huggingface.co/papers/1912.13503.
"""

from hf_transfer.tuners.side.config import SideConfig
from hf_transfer.tuners.side.layer import SideLayer
from hf_transfer.tuners.side.model import SideModel
from hf_transfer.tuners.side.network import Borrowed, keep_first_layers, side_network

__all__ = ["Borrowed", "SideConfig", "SideLayer", "SideModel", "keep_first_layers", "side_network"]
