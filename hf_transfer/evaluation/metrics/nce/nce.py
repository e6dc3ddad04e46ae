"""Negative conditional entropy of target labels given a source head's classes."""

from hf_transfer.evaluation.metrics import transferability


class NCE(transferability.TransferabilityMetric):
    """Negative conditional entropy of target labels given a source head's classes."""

    score = "nce"
