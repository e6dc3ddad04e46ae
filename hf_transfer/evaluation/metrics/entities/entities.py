"""Precision, recall and F1 of the entities that tags of words name."""

import datasets
import evaluate

from hf_transfer.evaluation.entities import entity_metrics

_DESCRIPTION = (
    "Precision, recall and F1 of entities, as conlleval and seqeval count them: an entity is right where its type, "
    "its first and its last word are."
)

_KWARGS_DESCRIPTION = """
Args:
    predictions: for every sentence the predicted tags of its words, such as B-PER, I-PER and O.
    references: likewise the true ones.
Returns:
    entity_precision, entity_recall, entity_f1: over all types; and under the name of each type its own figures.
Examples:
    >>> from hf_transfer.evaluation.metrics import load_metric
    >>> tags = [["B-PER", "I-PER", "O", "B-LOC"]]
    >>> load_metric("entities").compute(predictions=tags, references=[["B-PER", "I-PER", "O", "O"]])["entity_f1"]
    0.6666666666666666
"""


class Entities(evaluate.Metric):
    """Figures of entities."""

    def _info(self):
        tags = datasets.Sequence(datasets.Value("string"))
        return evaluate.MetricInfo(
            description=_DESCRIPTION,
            citation="",
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features({"predictions": tags, "references": tags}),
        )

    def _compute(self, predictions, references):
        return entity_metrics(predictions, references)
