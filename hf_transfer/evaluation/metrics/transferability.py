"""The scores of `hf_transfer.ranking` as evaluation modules: predictions are features, references are labels."""

from __future__ import annotations

from typing import ClassVar

import datasets
import evaluate
import torch

from hf_transfer.ranking.registry import score_class

REFERENCES = {
    "default": datasets.Value("int64"),
    "regression": datasets.Value("float64"),
    "multilabel": datasets.Sequence(datasets.Value("float64")),
}

ROWS_AT_ONCE = 4096

_KWARGS_DESCRIPTION = """
Args:
    predictions: features of each row (for LEEP and NCE the source head's probabilities).
    references: classes; with the configuration "regression" values, with "multilabel" a list of values a row.
    Further keywords are those of the score's class.
Returns:
    the score under its name, `standard_error` (None for one shard) and the score's diagnostics.
"""


class TransferabilityMetric(evaluate.Metric):
    """A transferability score behind `evaluate.load(...)`, `add_batch` and `compute`."""

    score: ClassVar[str] = ""

    def _info(self):
        if self.config_name not in REFERENCES:
            raise ValueError(f"The configuration should be one of {sorted(REFERENCES)}, got {self.config_name!r}.")
        kind = score_class(self.score)
        features = {
            "predictions": datasets.Sequence(datasets.Value("float32")),
            "references": REFERENCES[self.config_name],
        }
        return evaluate.MetricInfo(
            description=kind.__doc__,
            citation=kind.paper,
            inputs_description=_KWARGS_DESCRIPTION,
            features=datasets.Features(features),
        )

    def _compute(self, predictions, references, **options):
        accumulator = score_class(self.score)(**options)
        for start in range(0, len(predictions), ROWS_AT_ONCE):
            features = torch.as_tensor(predictions[start : start + ROWS_AT_ONCE])
            accumulator.update(features, torch.as_tensor(references[start : start + ROWS_AT_ONCE]))
        result = accumulator.compute()
        return {self.score: result.value, "standard_error": result.standard_error, **result.diagnostics}
