"""LEEP of a source head's probabilities and target labels."""

from hf_transfer.evaluation.metrics import transferability


class LEEP(transferability.TransferabilityMetric):
    """LEEP of a source head's probabilities and target labels."""

    score = "leep"
