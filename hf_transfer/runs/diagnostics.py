"""The pictures that a domain-adaptation run leaves in its output folder and on its model card."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from datasets import Dataset

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.checks import column_values
from hf_transfer.evaluation.plots import EMBEDDINGS, Cloud, confusion_counts, plot_confusion, plot_domains, plot_losses
from hf_transfer.family_trainers import DomainAdaptationTrainer
from hf_transfer.hub import PlotFact
from hf_transfer.objective import SOURCE, TARGET
from hf_transfer.runs.guard import kept_random_state

FIGURES_FOLDER = "figures"
ROWS = 300
"""Rows of each domain in the embedding."""


class Diagnostics:
    """Looks at the model before the training, and draws what became of it afterwards.

    Args:
        trainer: ready to train.
        embedding: "pca" or "tsne".

    Raises:
        ValueError: an unknown embedding.
    """

    def __init__(self, trainer: DomainAdaptationTrainer, embedding: str = "pca"):
        if embedding not in EMBEDDINGS:
            raise ValueError(f"`embedding` should be one of {list(EMBEDDINGS)}, got {embedding!r}.")
        self.trainer = trainer
        self.embedding = embedding
        self.folder = Path(trainer.args.output_dir) / FIGURES_FOLDER
        self.rows = few_rows(trainer.validation_dataset)
        with kept_random_state():
            self.before = self._cloud()[0]

    def _cloud(self) -> tuple[Cloud, np.ndarray]:
        """The rows under the present model, and their labels, -100 on the target."""
        features, logits, domain, labels = self.trainer.validation_outputs(self.rows)
        answers = logits.argmax(dim=1) if self.trainer.problem_type == SINGLE_LABEL else logits[:, 0]
        return Cloud(features.numpy(), answers.numpy(), domain.numpy()), labels.numpy()

    def draw(self, test: Dataset | None) -> list[PlotFact]:
        """Write the pictures; every process takes part, the main one writes.

        Args:
            test: labelled rows of the target, if there are any.
        """
        after, labels = self._cloud()
        confusions = self._confusions(after, labels, test)
        if not self.trainer.is_world_process_zero():
            return []
        self.folder.mkdir(parents=True, exist_ok=True)
        losses, domains, confusion = (self.folder / f"{name}.png" for name in ("losses", "domains", "confusion"))
        plots = []
        if plot_losses(self.trainer.state.log_history, losses):
            plots.append(PlotFact(losses, "Loss terms over the training"))
        plot_domains({"before": self.before, "after": after}, domains, self.embedding)
        plots.append(PlotFact(domains, f"Features of both domains before and after, by {self.embedding}"))
        if confusions:
            config = self.trainer.transfer_model.config
            names = [config.id2label[place] for place in range(config.num_labels)]
            plot_confusion(confusions, names, confusion)
            plots.append(PlotFact(confusion, "Confusion matrices where labels are known"))
        return plots

    def _confusions(self, after: Cloud, labels: np.ndarray, test: Dataset | None) -> dict[str, np.ndarray]:
        """Of the source rows, and of the test rows where they have class labels."""
        classes = self.trainer.transfer_model.config.num_labels
        if self.trainer.problem_type != SINGLE_LABEL:
            return {}
        source = after.domain == SOURCE
        counts = {"source": confusion_counts(labels[source], after.answers[source], classes)}
        if test is not None:
            output = self.trainer.predict(test)
            if output.label_ids is not None:
                counts["target test"] = confusion_counts(
                    output.label_ids, np.argmax(output.predictions, axis=-1), classes
                )
        return counts


def few_rows(dataset: Dataset) -> Dataset:
    """At most `ROWS` evenly spaced rows of each domain."""
    domains = column_values(dataset, "domain")
    chosen: list[int] = []
    for domain in (SOURCE, TARGET):
        places = np.flatnonzero(domains == domain)
        chosen += places[np.linspace(0, len(places) - 1, min(ROWS, len(places))).astype(int)].tolist()
    return dataset.select(chosen)
