"""LogME of features and labels."""

from hf_transfer.evaluation.metrics import transferability


class LogME(transferability.TransferabilityMetric):
    """LogME of features and labels."""

    score = "logme"
