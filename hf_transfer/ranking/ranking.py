"""The result of a ranking: one row a model, best first, with what each score is worth."""

from __future__ import annotations

import json
import math
import os
from collections.abc import Collection, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.measure import Measurement
from rich.table import Table

from hf_transfer.ranking.agreement import agreement_in_words, agreements, title
from hf_transfer.ranking.plots import plot_layers, plot_ranking
from hf_transfer.ranking.row import RankingRow, best_layer, score_names
from hf_transfer.ranking.score import probability_of_beating

NARROW_WITHOUT = ("seconds", "P(> next)", "layer", "± s.e.", "rank", "params")
"""Columns that a table leaves out, in this order, until it fits a narrow console."""
UNBOUNDED = 10_000

# A difference is told from this probability on.
TOLD_FROM = 0.75


@dataclass(frozen=True)
class Ranking:
    """Rows sorted best first, models that failed at the end.

    Args:
        rows: one a model, in any order.
        score: name of the score that orders them; of equal models the one of fewer parameters stands first.
        settings: what the scores depend on, for the record.
    """

    rows: tuple[RankingRow, ...]
    score: str = "logme"
    settings: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self):
        scored = [row for row in self.rows if row.score is not None]
        failed = [row for row in self.rows if row.score is None]
        ordered = sorted(scored, key=lambda row: (-row.score, row.parameters or math.inf)) + failed
        object.__setattr__(self, "rows", tuple(ordered))

    @property
    def scored(self) -> tuple[RankingRow, ...]:
        """The rows with a score, best first."""
        return tuple(row for row in self.rows if row.score is not None)

    @property
    def candidates(self) -> tuple[RankingRow, ...]:
        """The rows with a score that are no baselines, best first."""
        return tuple(row for row in self.scored if not row.is_baseline)

    @property
    def scores(self) -> tuple[str, ...]:
        """Names of all scores, first the one that orders the ranking."""
        return score_names(self.scored, self.score)

    @property
    def best(self) -> RankingRow:
        """The row of the best model; a baseline of random weights is none.

        Raises:
            ValueError: when no model could be scored.
        """
        if not self.candidates:
            reasons = "; ".join(f"{row.model}: {row.reason}" for row in self.rows if not row.is_baseline)
            raise ValueError(f"No model could be scored. {reasons or 'There were no candidates.'}")
        return self.candidates[0]

    def top(self, k: int) -> list[RankingRow]:
        """The k best rows, fewer if fewer were scored."""
        return list(self.candidates[:k])

    def probability_of_beating_next(self) -> list[float | None]:
        """For each scored row, the probability that its model has a higher expected score than the next one's."""
        return [
            probability_of_beating(first.layers[first.layer], second.layers[second.layer])
            for first, second in zip(self.scored, self.scored[1:])
        ] + ([None] if self.scored else [])

    def values(self, row: RankingRow) -> dict[str, float]:
        """Every score of a scored row, each at its own best layer."""
        others = {name: best_layer(layers)[1].value for name, layers in row.others.items() if layers}
        return {self.score: row.score, **others}

    def agreements(self) -> dict[tuple[str, str], float]:
        """Weighted Kendall tau of each pair of scores over the models, see `hf_transfer.ranking.agreement`."""
        return agreements({row.model: self.values(row) for row in self.candidates}, self.scores)

    def in_words(self) -> list[str]:
        """What the scores say, and what they do not: neighbours, agreement, baselines, notes, and failed models."""
        chances = self.probability_of_beating_next()
        name = title(self.score)
        sentences = [
            compare_in_words(first, second, chance, name)
            for first, second, chance in zip(self.scored, self.scored[1:], chances)
        ]
        if any(chance is not None for chance in chances):
            sentences.append(
                f"These probabilities cover the drawing of the rows for {name} alone, not whether a higher {name} "
                "means a better model after fine-tuning."
            )
        sentences += agreement_in_words({row.model: self.values(row) for row in self.candidates}, self.scores)
        for baseline in (row for row in self.scored if row.is_baseline):
            below = [
                row.model
                for row in self.candidates
                if row.architecture == baseline.architecture and row.score <= baseline.score
            ]
            sentences += [f"{model} has no higher {name} than random weights of its architecture." for model in below]
        sentences += [f"{row.model}: {note}" for row in self.rows for note in row.notes]
        return sentences + [f"{row.model} was not scored: {row.reason}" for row in self.rows if row.score is None]

    def advice_for_adapting(self) -> list[str]:
        """What to know before the best model is adapted: it is read at its last layer, whichever layer scored best."""
        best, name = self.best, title(self.score)
        last = max(best.layers)
        if best.layer == last:
            return []
        advice = [
            f"{best.model} has its best {name} at layer {best.layer} ({best.score:.4f}); the adapted model reads the "
            f"last layer, {last} ({best.layers[last].value:.4f})."
        ]
        first = max(self.candidates, key=lambda row: row.layers[max(row.layers)].value)
        if first.model != best.model:
            there = first.layers[max(first.layers)].value
            advice.append(f"By the last layer {first.model} has the highest {name} ({there:.4f}).")
        return advice

    def to_rows(self) -> list[dict[str, Any]]:
        """Plain dictionaries, ready for a data frame."""
        probabilities = self.probability_of_beating_next()
        table = []
        for index, row in enumerate(self.rows):
            facts = {name: value for name, value in asdict(row).items() if name not in ("layers", "others")}
            chance = probabilities[index] if index < len(probabilities) else None
            others = {} if row.score is None else self.values(row)
            facts |= {name: others.get(name) for name in self.scores[1:]}
            table.append({"rank": index + 1 if row.score is not None else None, **facts, "beats_next": chance})
        return table

    def to_markdown(self) -> str:
        """A Markdown table, then the comparisons in words."""
        header = self._header()
        lines = ["| " + " | ".join(header) + " |", "|" + " --- |" * len(header)]
        lines += ["| " + " | ".join(cell.replace("|", "\\|") for cell in cells) + " |" for cells in self._cells()]
        return "\n".join([*lines, "", *(f"- {sentence}" for sentence in self.in_words())]) + "\n"

    def to_table(self, without: Collection[str] = ()) -> Table:
        """A rich table for the terminal.

        Args:
            without: names of columns to leave out.
        """
        table = Table(title=f"Ranking by {self.score}")
        header = self._header()
        kept = [index for index, name in enumerate(header) if name not in without]
        for index in kept:
            is_model = header[index] == "model"
            table.add_column(header[index], justify="left" if is_model else "right", overflow="fold")
        for cells in self._cells():
            table.add_row(*(cells[index] for index in kept))
        return table

    def print(self, console: Console | None = None) -> None:
        """Print the table and the comparisons in words; where the console is narrow, fewer columns and whole names."""
        console = console or Console()
        left_out: list[str] = []
        table = self.to_table()
        for name in NARROW_WITHOUT:
            if Measurement.get(console, console.options.update(max_width=UNBOUNDED), table).maximum <= console.width:
                break
            left_out.append(name)
            table = self.to_table(left_out)
        console.print(table)
        if left_out:
            console.print(f"Left out for the width: {', '.join(left_out)}; a saved ranking has them.", highlight=False)
        for sentence in self.in_words():
            console.print(sentence, highlight=False)

    def to_json(self) -> str:
        """Everything, as JSON; `Ranking.from_json` reads it back."""
        body = {
            "score": self.score,
            "best": self.candidates[0].model if self.candidates else None,
            "settings": dict(self.settings),
            "in_words": self.in_words(),
            "beats_next": self.probability_of_beating_next(),
            "agreement": [{"scores": pair, "weighted_tau": tau} for pair, tau in self.agreements().items()],
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
            ValueError: when it is damaged, or another program's file of this name.
        """
        path = Path(directory) / "ranking.json"
        if not path.is_file():
            raise FileNotFoundError(f"{directory} holds no ranking.json; `Ranking.save` writes it.")
        try:
            return cls.from_json(path.read_text(encoding="utf-8"))
        except (ValueError, KeyError, TypeError) as error:
            raise ValueError(f"{path} is no ranking that `Ranking.save` wrote, or is damaged ({error!r}).") from error

    def renamed(self, names: Mapping[str, str]) -> Ranking:
        """The same ranking with other model names, for a report that should not show local paths."""
        rows = tuple(replace(row, model=names.get(row.model, row.model)) for row in self.rows)
        return replace(self, rows=rows)

    def _header(self) -> list[str]:
        others = [f"{name} (layer)" for name in self.scores[1:]]
        return ["rank", "model", self.score, "± s.e.", "P(> next)", "layer", *others, "params", "seconds"]

    def _cells(self) -> list[list[str]]:
        probabilities = self.probability_of_beating_next()
        cells = []
        for index, row in enumerate(self.rows):
            size = count_in_words(row.parameters)
            others = self.scores[1:]
            if row.score is None:
                cells.append(["-", row.model, "failed", "-", "-", "-", *["-"] * len(others), size, "-"])
                continue
            error = "-" if row.standard_error is None else f"{row.standard_error:.4f}"
            chance = "-" if probabilities[index] is None else f"{probabilities[index]:.3f}"
            start = [str(index + 1), row.model, f"{row.score:.4f}", error, chance, str(row.layer)]
            cells.append([*start, *(other_cell(row, name) for name in others), size, f"{row.seconds:.1f}"])
        return cells


def other_cell(row: RankingRow, name: str) -> str:
    """A further score and its best layer, such as "0.9133 (4)"."""
    if not row.others.get(name):
        return "-"
    layer, score = best_layer(row.others[name])
    return f"{score.value:.4f} ({layer})"


class NothingScoredError(ValueError):
    """Every candidate failed; the message says why each did, and `ranking` has the rows.

    Args:
        ranking: without a scored row.
    """

    def __init__(self, ranking: Ranking):
        self.ranking = ranking
        reasons = "; ".join(f"{row.model}: {row.reason}" for row in ranking.rows)
        super().__init__(f"No model could be scored. {reasons or 'There were no candidates.'}")


def compare_in_words(first: RankingRow, second: RankingRow, probability: float | None, score: str) -> str:
    """Which of two neighbours has the higher score, and how surely, as a sentence."""
    if first.score == second.score:
        smaller = " (the smaller model first)" if first.parameters != second.parameters else ""
        return f"{first.model} and {second.model} have the same {score}{smaller}."
    if probability is None:
        return f"{first.model} has a higher {score} than {second.model}; the uncertainty is not known."
    number = "above 0.999" if probability > 0.999 else f"{probability:.3f}"
    if probability >= TOLD_FROM:
        return f"{first.model} has a higher {score} than {second.model} (probability {number})."
    smaller = ""
    if None not in (first.parameters, second.parameters) and second.parameters < first.parameters:
        smaller = f"; {second.model} is the smaller one"
    return (
        f"{first.model} cannot be told from {second.model} by {score} with these data (probability {number}){smaller}."
    )


def count_in_words(parameters: int | None) -> str:
    """A number of parameters with a unit: 12.3k, 4.5M, 1.2B."""
    if parameters is None:
        return "-"
    for limit, unit in ((1e9, "B"), (1e6, "M"), (1e3, "k")):
        if parameters >= limit:
            return f"{parameters / limit:.1f}{unit}"
    return str(parameters)
