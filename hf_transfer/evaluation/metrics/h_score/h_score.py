"""H-score of features and class labels."""

from hf_transfer.evaluation.metrics import transferability


class HScore(transferability.TransferabilityMetric):
    """H-score of features and class labels."""

    score = "h_score"
