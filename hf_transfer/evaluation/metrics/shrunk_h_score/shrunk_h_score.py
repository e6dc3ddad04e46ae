"""H-score with the covariance of Ledoit and Wolf."""

from hf_transfer.evaluation.metrics import transferability


class ShrunkHScore(transferability.TransferabilityMetric):
    """H-score with the covariance of Ledoit and Wolf."""

    score = "shrunk_h_score"
