"""One row of a ranking: a model, its scores at every layer, or the reason why it has none."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from hf_transfer.ranking.score import Score


@dataclass(frozen=True)
class RankingRow:
    """One model: its score at the best of the asked layers, or the reason why it has none.

    `layers` are the layers of the score that orders the ranking, `others` those of the further scores by their names.
    A baseline has the architecture of another row's model and random weights.
    """

    model: str
    score: float | None = None
    standard_error: float | None = None
    reason: str | None = None
    layer: int | None = None
    layers: Mapping[int, Score] = field(default_factory=dict)
    others: Mapping[str, Mapping[int, Score]] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    architecture: str | None = None
    is_baseline: bool = False
    revision: str | None = None
    parameters: int | None = None
    rows: int | None = None
    batch_size: int | None = None
    seconds_load: float | None = None
    seconds_features: float | None = None
    seconds_score: float | None = None

    @property
    def seconds(self) -> float:
        return sum(part or 0.0 for part in (self.seconds_load, self.seconds_features, self.seconds_score))

    @classmethod
    def of_scores(cls, model: str, scores: Mapping[str, Mapping[int, Score]], **facts: Any) -> RankingRow:
        """A row of scores by name and layer, of which the first orders the ranking."""
        (_, layers), *others = scores.items()
        layer, best = best_layer(layers)
        return cls(model, best.value, best.standard_error, None, layer, layers, dict(others), **facts)

    @classmethod
    def from_dict(cls, facts: Mapping[str, Any]) -> RankingRow:
        """A row from its JSON form."""
        others = {name: layers_from_dict(layers) for name, layers in facts.get("others", {}).items()}
        notes = tuple(facts.get("notes", ()))
        return cls(**{**facts, "layers": layers_from_dict(facts["layers"]), "others": others, "notes": notes})


def score_names(rows: Iterable[RankingRow], first: str) -> tuple[str, ...]:
    """The names of all scores that some row has, the one that orders the ranking first."""
    return (first, *dict.fromkeys(name for row in rows for name in row.others))


def layers_from_dict(layers: Mapping[str, Any]) -> dict[int, Score]:
    """Scores by layer from their JSON form."""
    return {
        int(layer): Score(**{**score, "replicates": tuple(score["replicates"])}) for layer, score in layers.items()
    }


def best_layer(layers: Mapping[int, Score]) -> tuple[int, Score]:
    """The layer of highest score, the earlier of equal ones."""
    layer = max(layers, key=lambda layer: (layers[layer].value, -layer))
    return layer, layers[layer]
