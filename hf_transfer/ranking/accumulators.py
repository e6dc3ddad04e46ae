"""The statistics of every score and layer of one model, filled in one pass over the data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor

from hf_transfer.ranking.score import ROWS_PER_FLUSH, Score, TransferabilityScore
from hf_transfer.ranking.settings import RankSettings

# Statistics of all layers and scores beside the model; of a wide and deep model only some layers are scored.
MOST_BYTES = 4 * 2**30


class Accumulators:
    """By layer and score; what fails of a score that does not order the ranking is kept as its reason.

    Args:
        settings: names and options of the scores.
        rows: of the data set, for the memory.
    """

    def __init__(self, settings: RankSettings, rows: int):
        self.settings, self.rows = settings, rows
        self.layers: dict[int, dict[str, TransferabilityScore]] = {}
        self.failed: dict[str, str] = {}
        self.layers_seen = 0

    def update(self, layer: int, features: Tensor, labels: Tensor, rows: Tensor) -> None:
        """Add rows of one layer: features [B, D], labels [B] or [B, C], places [B].

        Raises:
            ValueError: the score that orders the ranking cannot take them.
        """
        if layer not in self.layers:
            self.layers[layer] = self.settings.new_scores()
        for name, accumulator in list(self.layers[layer].items()):
            if name in self.failed:
                continue
            try:
                accumulator.update(features, labels, rows)
            except (ValueError, torch.linalg.LinAlgError) as error:
                self._fail(name, error)

    def choose(self, features: Mapping[int, Tensor]) -> dict[int, Tensor]:
        """The layers whose statistics fit into memory: all, or every so many of them, the last among them."""
        self.layers_seen = max(self.layers_seen, len(features))
        if self.layers or not isinstance(self.settings.layers, str):
            return {layer: vectors for layer, vectors in features.items() if layer in self.layers or not self.layers}
        size = max(vectors.shape[-1] for vectors in features.values())
        # Rows wait until there are enough of them for a product; from then on there is a matrix a shard.
        shards = max(len(score.shards) for score in self.settings.new_scores().values())
        each = min(4 * size * self.rows, 8 * size * size * shards + 4 * size * ROWS_PER_FLUSH)
        step = -(-len(features) * each // MOST_BYTES)
        kept = sorted(features, reverse=True)[:: max(1, step)]
        return {layer: features[layer] for layer in sorted(kept)}

    def to_cpu(self) -> None:
        """Move everything to the CPU, to be sent to another process."""
        for scores in self.layers.values():
            for accumulator in scores.values():
                accumulator.to_cpu()

    def _fail(self, name: str, error: Exception) -> None:
        if name == self.settings.scores[0]:
            raise error
        self.failed[name] = (str(error).strip().splitlines() or [type(error).__name__])[0]


def compute_scores(parts: Sequence[Accumulators]) -> tuple[dict[str, dict[int, Score]], dict[str, str]]:
    """Scores by name and layer of the merged statistics of all processes, and why some scores failed.

    Raises:
        ValueError: the score that orders the ranking failed.
    """
    first = parts[0]
    for part in parts[1:]:
        first.failed |= part.failed
    found: dict[str, dict[int, Score]] = {name: {} for name in first.settings.scores}
    for layer in sorted({layer for part in parts for layer in part.layers}):
        # A layer at a time: what waits becomes matrices only now, and these go before the next layer.
        theirs = [part.layers.pop(layer) for part in parts if layer in part.layers]
        for name in first.settings.scores:
            if name in first.failed:
                continue
            try:
                accumulator, *others = (scores.pop(name) for scores in theirs)
                for other in others:
                    accumulator.merge(other)
                found[name][layer] = accumulator.compute()
            except (ValueError, torch.linalg.LinAlgError) as error:
                first._fail(name, error)
    return {name: layers for name, layers in found.items() if name not in first.failed}, first.failed
