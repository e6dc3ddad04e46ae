"""The pictures that a domain-adaptation run leaves in its output folder and on its model card."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from transformers import EvalPrediction

from hf_transfer.core.objective import SOURCE, TARGET
from hf_transfer.core.random_state import kept_random_state
from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.data.checks import column_values
from hf_transfer.evaluation.answers import labelled_units
from hf_transfer.evaluation.plots import EMBEDDINGS, Cloud, confusion_counts, plot_confusion, plot_domains, plot_losses
from hf_transfer.hub import PlotFact
from hf_transfer.training.family_trainers import DomainAdaptationTrainer

FIGURES_FOLDER = "figures"
ROWS = 300
"""Units of each domain in the embedding."""


class Diagnostics:
    """Looks at the model before the training, and draws what became of it afterwards.

    Args:
        trainer: ready to train.
        embedding: "pca" or "tsne".
        has_reference: a source-only model is scored after the training, whose features are then drawn as "before".

    Raises:
        ValueError: an unknown embedding.
    """

    def __init__(self, trainer: DomainAdaptationTrainer, embedding: str = "pca", has_reference: bool = False):
        if embedding not in EMBEDDINGS:
            raise ValueError(f"`embedding` should be one of {list(EMBEDDINGS)}, got {embedding!r}.")
        self.trainer = trainer
        self.embedding = embedding
        self.folder = Path(trainer.args.output_dir) / FIGURES_FOLDER
        self.before: tuple[str, Cloud] | None = None
        if not has_reference:
            rows = trainer.validation_dataset
            rows = rows.select(few_of(torch.from_numpy(column_values(rows, "domain"))))
            with kept_random_state():
                self.before = ("before", self._labelled(few_units(trainer.validation_outputs(rows))))

    def _labelled(self, outputs: tuple[Tensor, ...]) -> Cloud:
        """Rows with their labels: the head of a model before its training may be random, and predicts nothing."""
        features, logits, domain, labels = outputs
        answers = self._answers(logits)
        known = labels if labels.ndim == 1 else labels[:, 0]
        unknown = math.nan if answers.is_floating_point() else -1
        answers = torch.where(domain == SOURCE, known.to(answers.dtype), unknown)
        return Cloud(features.numpy(), answers.numpy(), domain.numpy(), kind="labels of the source")

    def _predicted(self, outputs: tuple[Tensor, ...]) -> Cloud:
        features, logits, domain, _ = outputs
        return Cloud(features.numpy(), self._answers(logits).numpy(), domain.numpy())

    def _answers(self, logits: Tensor) -> Tensor:
        return logits.argmax(dim=1) if self.trainer.problem_type == SINGLE_LABEL else logits[:, 0].float()

    def see_reference(self, outputs: tuple[Tensor, ...]) -> None:
        """The validation outputs of the source-only model."""
        self.before = ("source only", self._predicted(few_units(outputs)))

    def draw(self, test: EvalPrediction | None) -> list[PlotFact]:
        """Write the pictures, of the validation outputs that the trainer keeps; the main process writes.

        Args:
            test: outputs and labels of the target's test rows, if there are any.
        """
        outputs = self.trainer.validation_outputs()
        if not self.trainer.is_world_process_zero():
            return []
        config = self.trainer.transfer_model.config
        names = [config.id2label[index] for index in range(config.num_labels)]
        self.folder.mkdir(parents=True, exist_ok=True)
        losses, domains, confusion = (self.folder / f"{name}.png" for name in ("losses", "domains", "confusion"))
        plots = []
        if plot_losses(self.trainer.state.log_history, losses):
            plots.append(PlotFact(losses, "Loss terms over the training"))
        after = self._predicted(few_units(outputs))
        is_single = self.trainer.problem_type == SINGLE_LABEL
        clouds = dict([*([self.before] if self.before else []), ("after", after)])
        plot_domains(clouds, domains, self.embedding, names if is_single else None)
        plots.append(PlotFact(domains, f"Features of both domains, {' and '.join(clouds)}, by {self.embedding}"))
        if is_single:
            plot_confusion(self._confusions(outputs, test), names, confusion)
            plots.append(PlotFact(confusion, "Confusion matrices where labels are known, in rows"))
        return plots

    def _confusions(self, outputs: tuple[Tensor, ...], test: EvalPrediction | None) -> dict[str, np.ndarray]:
        """Of the source rows that validators read, and of the test rows."""
        _, logits, domain, labels = outputs
        classes, source = self.trainer.transfer_model.config.num_labels, (domain == SOURCE).numpy()
        counts = {"source": confusion_counts(labels.numpy()[source], logits.argmax(dim=1).numpy()[source], classes)}
        reader = self.trainer.transfer_model.readout
        if test is not None and reader.own_task_loss is None:  # else its outputs are no logits of units
            logits, known = labelled_units(test.predictions, test.label_ids)
            counts["target test"] = confusion_counts(known, np.argmax(logits, axis=-1), classes)
        return counts


def few_units(outputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
    """Features, logits, domain and labels of a few units of each domain."""
    chosen = few_of(outputs[2])
    return tuple(values[chosen] for values in outputs)


def few_of(domain: Tensor) -> list[int]:
    """Indices of at most `ROWS` evenly spaced ones of each domain."""
    chosen: list[int] = []
    for one in (SOURCE, TARGET):
        found = np.flatnonzero(domain.numpy() == one)
        chosen += found[np.linspace(0, len(found) - 1, min(ROWS, len(found))).astype(int)].tolist()
    return chosen
