"""Text classification, and regression from texts."""

from __future__ import annotations

from hf_transfer.tasks.text import TextTask


class TextClassification(TextTask):
    """One class, several labels or numbers of a text or a pair of texts."""

    name = "text-classification"
    auto_class = "AutoModelForSequenceClassification"
    input_column = "input_ids"
