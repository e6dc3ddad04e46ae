"""Leave-one-out accuracy of the nearest neighbours."""

from hf_transfer.evaluation.metrics import transferability


class KNN(transferability.TransferabilityMetric):
    """Leave-one-out accuracy of the nearest neighbours."""

    score = "knn"
