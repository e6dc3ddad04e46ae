"""Leave-one-out accuracy of a ridge probe."""

from hf_transfer.evaluation.metrics import transferability


class LinearProbe(transferability.TransferabilityMetric):
    """Leave-one-out accuracy of a ridge probe."""

    score = "linear_probe"
