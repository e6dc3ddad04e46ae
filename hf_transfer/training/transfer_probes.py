"""Transfer probes: how well the features of a pre-training serve small labelled target sets, at every evaluation.

Each score of a ranking (LogME, kNN, a linear probe) is computed of the backbone's hidden states, layer by layer; the
best layer's value is the metric `eval_TARGET_SCORE`. A checkpoint can be chosen by one (`metric_for_best_model`), and
a training can end where it no longer rises (`early_stopping_patience`). Nothing is trained on the targets.

Papers: LogME, You et al., ICML 2021, https://huggingface.co/papers/2102.11005; the other scores name their own.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from datasets import Dataset
from peft import PeftModel
from torch import Tensor, nn
from transformers import PreTrainedModel

from hf_transfer.data.checks import column_values, label_column
from hf_transfer.modeling.anatomy import backbone_of, is_backbone, unwrap_peft
from hf_transfer.ranking.features import FeatureExtractor
from hf_transfer.ranking.scorer import extracted, labelled_rows
from hf_transfer.ranking.settings import DEFAULT_SCORES, RankSettings


@dataclass(frozen=True)
class ProbeTarget:
    """A small labelled set.

    Args:
        rows: model inputs and a label column.
        collator: makes a batch of them, with `labels`.

    Raises:
        ValueError: fewer than two rows, no label column, or the same label everywhere.
    """

    rows: Dataset
    collator: Callable[[Sequence[Any]], Mapping[str, Tensor]]

    def __post_init__(self):
        if len(self.rows) < 2:
            raise ValueError(f"a transfer probe needs at least 2 rows, got {len(self.rows)}.")
        labels = column_values(self.rows, label_column(self.rows, "transfer probe"))
        if len(np.unique(labels, axis=0)) < 2:
            raise ValueError("a transfer probe needs at least 2 classes or values, and all of its labels are alike.")


class TransferProbes:
    """The scores of a model in training on some targets.

    Args:
        targets: by name.
        scores: of a ranking, such as logme, knn and linear_probe.
        layers: "all", "last" or numbers of layers.
        batch_size: rows at a time.

    Raises:
        ValueError: no target, an unknown score, or one of a source head's probabilities.
    """

    def __init__(
        self,
        targets: Mapping[str, ProbeTarget],
        scores: Sequence[str] = DEFAULT_SCORES,
        layers: str | Sequence[int] = "all",
        batch_size: int = 64,
    ):
        if not targets:
            raise ValueError("`transfer_probes` should name at least one labelled data set.")
        self.settings = RankSettings(score=tuple(scores), layers=layers)
        if self.settings.reads_head:
            raise ValueError(f"transfer probes read features, and {list(scores)} reads a head's probabilities.")
        self.targets = dict(targets)
        self.layers = layers
        self.batch_size = batch_size

    @property
    def names(self) -> list[str]:
        """Of the metrics, without a prefix."""
        return [f"{target}_{score}" for target in self.targets for score in self.settings.scores]

    def measure(self, model: PreTrainedModel | PeftModel) -> dict[str, float]:
        """The value of the best layer, by name.

        Args:
            model: in training; its weights, its modes and the state of the random numbers stay.

        Raises:
            ValueError: the rows do not allow a score, such as one class alone.
        """
        found: dict[str, float] = {}
        with at_rest(model) as backbone:
            for name, target in self.targets.items():
                for score, layers in self._scores(backbone, target).items():
                    found[f"{name}_{score}"] = max(layers.values())
        return found

    def _scores(self, backbone: nn.Module, target: ProbeTarget) -> dict[str, dict[int, float]]:
        """Score -> layer -> value on a target."""
        extract, accumulators = FeatureExtractor(backbone, self.layers), {}
        for start in range(0, len(target.rows), self.batch_size):
            indices = torch.arange(start, min(start + self.batch_size, len(target.rows)))
            batch = dict(target.collator([target.rows[index] for index in indices.tolist()]))
            labels = batch.pop("labels")
            with torch.no_grad():
                layers = extracted(extract.features, batch, backbone)
            for layer, features in layers.items():
                known = labelled_rows(features, labels, indices, is_per_token=False)
                for score in accumulators.setdefault(layer, self.settings.new_scores()).values():
                    score.update(*known)
        return {
            name: {layer: scores[name].compute().value for layer, scores in accumulators.items()}
            for name in self.settings.scores
        }


@contextmanager
def at_rest(model: PreTrainedModel | PeftModel) -> Iterator[nn.Module]:
    """The backbone in evaluation mode, seeing whole rows (a masked autoencoder hides nothing); all as before after."""
    base = unwrap_peft(model)
    if getattr(base.config, "is_encoder_decoder", False):
        backbone = base.get_encoder()
    else:
        backbone = base if is_backbone(base) else backbone_of(base)
    modes = {module: module.training for module in model.modules()}
    hidden = getattr(base.config, "mask_ratio", None)
    try:
        with torch.random.fork_rng():
            model.eval()
            if hidden is not None:
                base.config.mask_ratio = 0.0
            yield backbone
    finally:
        for module, mode in modes.items():
            module.training = mode
        if hidden is not None:
            base.config.mask_ratio = hidden
