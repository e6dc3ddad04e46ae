"""Share of predictions that equal their reference."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = (
    "Accuracy is the share of predictions that equal their reference: sum_n [prediction_n = reference_n] / n."
)

_KWARGS_DESCRIPTION = """
Args:
    predictions: predicted classes.
    references: true classes.
    normalize: divide by the number of rows; False gives the count.
    sample_weight: weight of each row.
Returns:
    accuracy: a float in [0, 1], or the (weighted) count.
Examples:
    >>> from hf_transfer.evaluation.metrics import load_metric
    >>> load_metric("accuracy").compute(predictions=[0, 1, 1], references=[0, 1, 0])
    {'accuracy': 0.6666666666666666}
"""


class Accuracy(evaluate.Metric):
    """Accuracy of class predictions."""

    def _info(self):
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(
                {"predictions": datasets.Value("int64"), "references": datasets.Value("int64")}
            ),
        )

    def _compute(self, predictions, references, normalize=True, sample_weight=None):
        is_right = np.asarray(predictions) == np.asarray(references)
        weights = np.ones(len(is_right)) if sample_weight is None else np.asarray(sample_weight, dtype=float)
        right = float((is_right * weights).sum())
        return {"accuracy": right / float(weights.sum()) if normalize else right}
