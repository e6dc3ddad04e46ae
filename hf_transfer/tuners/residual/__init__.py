"""Residual adapters: a small bottleneck added to what a frozen layer gives.

    serial:    y = h + s * U f(D h + a) + b,   h = layer(x)
    parallel:  y = layer(x) + s * U f(D x + a) + b

D narrows to `r`, U widens again and starts at zero, so that training starts from the pre-trained model. With
`kronecker_terms` = n both are sums of Kronecker products, W = sum_{i=1..n} A_i (x) (s_i t_i^T) (Compacter). On
convolutions D and U are 1x1 convolutions.

Papers: Houlsby et al., ICML 2019, https://huggingface.co/papers/1902.00751 (serial, after attention and MLP); He et
al., ICLR 2022, https://huggingface.co/papers/2110.04366 (parallel, the scaling s); Mahabadi et al., NeurIPS 2021,
https://huggingface.co/papers/2106.04647 (Compacter); Rebuffi et al., CVPR 2018,
https://huggingface.co/papers/1803.10082 (1x1 residual adapters).
"""

from hf_transfer.tuners.residual.config import ResidualConfig
from hf_transfer.tuners.residual.layer import Bottleneck, KroneckerLinear, ResidualLayer
from hf_transfer.tuners.residual.model import ResidualModel

__all__ = ["Bottleneck", "KroneckerLinear", "ResidualConfig", "ResidualLayer", "ResidualModel"]
