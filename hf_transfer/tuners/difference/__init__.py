"""Difference tuning: a sparse change of the pre-trained weights (diff pruning), or of the biases alone (BitFit).

    theta = theta_0 + z * delta,   z = min(1, max(0, s (zeta - gamma) + gamma))
    s = sigmoid((log u - log(1 - u) + log alpha) / beta),   u uniform in (0, 1)
    E ||z||_0 = sum_i sigmoid(log alpha_i - beta log(-gamma / zeta))

z are hard-concrete gates, one a weight and, with `is_structured`, one more a tensor, which multiply. In evaluation
s = sigmoid(log alpha). Training adds `penalty` * max(0, E ||z||_0 / n - target), the target falling from 1 to
`share`; then the `share` n largest |z delta| are kept (the projection), and training goes on with these alone.

Papers: Guo et al., ACL 2021, https://huggingface.co/papers/2012.07463 (diff pruning); Louizos et al., ICLR 2018,
https://huggingface.co/papers/1712.01312 (hard-concrete gates); Ben Zaken et al., ACL 2022,
https://huggingface.co/papers/2106.10199 (BitFit); Zhu & Gupta 2017, https://huggingface.co/papers/1710.01878 (the
cubic schedule of the target).
"""

from hf_transfer.tuners.difference.config import DifferenceConfig
from hf_transfer.tuners.difference.gates import hard_concrete, open_probability
from hf_transfer.tuners.difference.layer import DifferenceLayer, DifferenceTensor, SparseDifference
from hf_transfer.tuners.difference.model import DifferenceModel
from hf_transfer.tuners.difference.sparsity import (
    ChangedParameters,
    DifferenceCallback,
    changed_parameters,
    project,
    sparsity_penalty,
)

__all__ = [
    "ChangedParameters",
    "DifferenceCallback",
    "DifferenceConfig",
    "DifferenceLayer",
    "DifferenceModel",
    "DifferenceTensor",
    "SparseDifference",
    "changed_parameters",
    "hard_concrete",
    "open_probability",
    "project",
    "sparsity_penalty",
]
