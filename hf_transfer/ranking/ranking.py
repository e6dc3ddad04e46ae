"""The result of a ranking: one row a model, best first, with what each score is worth."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from hf_transfer.ranking.plots import plot_layers, plot_ranking
from hf_transfer.ranking.score import Score, probability_of_beating

VERDICTS = ((0.99, "almost certainly beats"), (0.9, "very likely beats"), (0.75, "probably beats"))


@dataclass(frozen=True)
class RankingRow:
    """One model: its score at the best of the asked layers, or the reason why it has none."""

    model: str
    score: float | None = None
    standard_error: float | None = None
    reason: str | None = None
    layer: int | None = None
    layers: Mapping[int, Score] = field(default_factory=dict)
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
    def from_dict(cls, facts: Mapping[str, Any]) -> RankingRow:
        """A row from its JSON form."""
        layers = {
            int(layer): Score(**{**score, "replicates": tuple(score["replicates"])})
            for layer, score in facts["layers"].items()
        }
        return cls(**{**facts, "layers": layers})


@dataclass(frozen=True)
class Ranking:
    """Rows sorted best first, models that failed at the end.

    Args:
        rows: one a model, in any order.
        score: name of the score.
        settings: what the scores depend on, for the record.
    """

    rows: tuple[RankingRow, ...]
    score: str = "logme"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        scored = [row for row in self.rows if row.score is not None]
        failed = [row for row in self.rows if row.score is None]
        ordered = sorted(scored, key=lambda row: row.score, reverse=True) + failed
        object.__setattr__(self, "rows", tuple(ordered))

    @property
    def scored(self) -> tuple[RankingRow, ...]:
        """The rows with a score, best first."""
        return tuple(row for row in self.rows if row.score is not None)

    @property
    def best(self) -> RankingRow:
        """The row of the best model.

        Raises:
            ValueError: when no model could be scored.
        """
        if not self.scored:
            reasons = "; ".join(f"{row.model}: {row.reason}" for row in self.rows)
            raise ValueError(f"No model could be scored. {reasons or 'There were no candidates.'}")
        return self.scored[0]

    def top(self, k: int) -> list[RankingRow]:
        """The k best rows, fewer if fewer were scored."""
        return list(self.scored[:k])

    def probability_of_beating_next(self) -> list[float | None]:
        """For each scored row, the probability that its model has a higher expected score than the next one's."""
        return [
            probability_of_beating(first.layers[first.layer], second.layers[second.layer])
            for first, second in zip(self.scored, self.scored[1:])
        ] + ([None] if self.scored else [])

    def in_words(self) -> list[str]:
        """One sentence for each pair of neighbours, and one for each model that failed."""
        sentences = []
        for first, second, probability in zip(self.scored, self.scored[1:], self.probability_of_beating_next()):
            sentences.append(compare_in_words(first.model, second.model, probability))
        return sentences + [f"{row.model} was not scored: {row.reason}" for row in self.rows if row.score is None]

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain dictionaries, ready for a data frame."""
        probabilities = self.probability_of_beating_next()
        table = []
        for place, row in enumerate(self.rows):
            facts = {name: value for name, value in asdict(row).items() if name != "layers"}
            chance = probabilities[place] if place < len(probabilities) else None
            table.append({"rank": place + 1 if row.score is not None else None, **facts, "beats_next": chance})
        return table

    def to_markdown(self) -> str:
        """A Markdown table, then the comparisons in words."""
        header = self._header()
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in self._cells()]
        return "\n".join([*lines, "", *(f"- {sentence}" for sentence in self.in_words())]) + "\n"

    def to_table(self) -> Table:
        """A rich table for the terminal."""
        table = Table(title=f"Ranking by {self.score}")
        for name in self._header():
            table.add_column(name, justify="left" if name == "model" else "right", overflow="fold")
        for cells in self._cells():
            table.add_row(*cells)
        return table

    def print(self, console: Console | None = None) -> None:
        """Print the table and the comparisons in words."""
        console = console or Console()
        console.print(self.to_table())
        for sentence in self.in_words():
            console.print(sentence, highlight=False)

    def to_json(self) -> str:
        """Everything, as JSON; `Ranking.from_json` reads it back."""
        body = {
            "score": self.score,
            "best": self.scored[0].model if self.scored else None,
            "settings": dict(self.settings),
            "in_words": self.in_words(),
            "beats_next": self.probability_of_beating_next(),
            "rows": [asdict(row) for row in self.rows],
        }
        return json.dumps(body, indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str) -> Ranking:
        body = json.loads(text)
        return cls(tuple(RankingRow.from_dict(row) for row in body["rows"]), body["score"], body["settings"])

    def save(self, directory: str | os.PathLike) -> Path:
        """Write ranking.json, ranking.md, ranking.png and, with several layers, layers.png into `directory`."""
        folder = Path(directory)
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "ranking.json").write_text(self.to_json(), encoding="utf-8")
        (folder / "ranking.md").write_text(self.to_markdown(), encoding="utf-8")
        if self.scored:
            plot_ranking(self.scored, self.score, folder / "ranking.png")
        if any(len(row.layers) > 1 for row in self.scored):
            plot_layers(self.scored, self.score, folder / "layers.png")
        return folder

    @classmethod
    def load(cls, directory: str | os.PathLike) -> Ranking:
        """Read what `save` wrote.

        Raises:
            FileNotFoundError: when there is no ranking.json.
        """
        path = Path(directory) / "ranking.json"
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no ranking.json; `Ranking.save` writes it.")
        return cls.from_json(path.read_text(encoding="utf-8"))

    def renamed(self, names: Mapping[str, str]) -> Ranking:
        """The same ranking with other model names, for a report that should not show local paths."""
        rows = tuple(replace(row, model=names.get(row.model, row.model)) for row in self.rows)
        return replace(self, rows=rows)

    def _header(self) -> list[str]:
        return ["rank", "model", self.score, "± s.e.", "P(> next)", "layer", "params", "seconds"]

    def _cells(self) -> list[list[str]]:
        probabilities = self.probability_of_beating_next()
        cells = []
        for place, row in enumerate(self.rows):
            size = count_in_words(row.parameters)
            if row.score is None:
                cells.append(["-", row.model, "failed", "-", "-", "-", size, "-"])
                continue
            error = "-" if row.standard_error is None else f"{row.standard_error:.4f}"
            chance = "-" if probabilities[place] is None else f"{probabilities[place]:.3f}"
            seconds = f"{row.seconds:.1f}"
            cells.append([str(place + 1), row.model, f"{row.score:.4f}", error, chance, str(row.layer), size, seconds])
        return cells


def compare_in_words(first: str, second: str, probability: float | None) -> str:
    """The probability that the first of two neighbours is better, as a sentence."""
    if probability is None:
        return f"{first} scores higher than {second}; the uncertainty is not known."
    number = "above 0.999" if probability > 0.999 else f"{probability:.3f}"
    for threshold, verb in VERDICTS:
        if probability >= threshold:
            return f"{first} {verb} {second} (probability {number})."
    return f"{first} cannot be told from {second} with these data (probability {number})."


def count_in_words(parameters: int | None) -> str:
    """A number of parameters with a unit: 12.3k, 4.5M, 1.2B."""
    if parameters is None:
        return "-"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= limit:
            return f"{parameters / limit:.1f}{unit}"
    return str(parameters)
