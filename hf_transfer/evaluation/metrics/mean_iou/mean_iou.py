"""Mean intersection over union of maps of classes."""

import datasets
import evaluate
import numpy as np

_DESCRIPTION = (
    "IoU_c = intersection_c / union_c of the pixels that are, and are predicted as, class c, over all maps; their "
    "mean over the classes that are there or predicted. Pixels of ignore_index do not count."
)

_KWARGS_DESCRIPTION = """
Args:
    predictions: maps [H, W] of predicted classes.
    references: maps [H, W] of true classes.
    num_labels: number of classes.
    ignore_index: of pixels without a class.
Returns:
    mean_iou, mean_accuracy, overall_accuracy: floats in [0, 1].
    per_category_iou: a list; NaN for a class that is neither there nor predicted.
Examples:
    >>> from hf_transfer.evaluation.metrics import load_metric
    >>> load_metric("mean_iou").compute(predictions=[[[0, 1]]], references=[[[0, 1]]], num_labels=2)["mean_iou"]
    1.0
"""


class MeanIoU(evaluate.Metric):
    """Mean intersection over union, and accuracies of pixels."""

    def _info(self):
        maps = datasets.Sequence(datasets.Sequence(datasets.Value("int64")))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": maps, "references": maps}),
        )

    def _compute(self, predictions, references, num_labels, ignore_index=255):
        counts = np.zeros((num_labels, num_labels))
        for prediction, reference in zip(predictions, references):
            answers, labels = np.asarray(prediction), np.asarray(reference)
            known = labels != ignore_index
            np.add.at(counts, (labels[known], answers[known]), 1)
        right, labelled = np.diag(counts), counts.sum(axis=1)
        union = labelled + counts.sum(axis=0) - right
        with np.errstate(invalid="ignore", divide="ignore"):
            ious, accuracies = right / union, right / labelled
        return {
            "mean_iou": float(np.nanmean(ious)),
            "mean_accuracy": float(np.nanmean(accuracies)),
            "overall_accuracy": float(right.sum() / labelled.sum()),
            "per_category_iou": ious.tolist(),
        }
