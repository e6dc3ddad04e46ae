"""Gaussian Bhattacharyya coefficient of the classes."""

from hf_transfer.evaluation.metrics import transferability


class GBC(transferability.TransferabilityMetric):
    """Gaussian Bhattacharyya coefficient of the classes."""

    score = "gbc"
