"""TransRate of features and class labels."""

from hf_transfer.evaluation.metrics import transferability


class TransRate(transferability.TransferabilityMetric):
    """TransRate of features and class labels."""

    score = "trans_rate"
