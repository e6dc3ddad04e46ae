"""The page of the pre-training benchmark: a table a section, the field's remarks table, and what is drawn."""

from __future__ import annotations

import statistics
from typing import Any

import pretraining_coloured
import pretraining_costs
import pretraining_episodes
import pretraining_images
import pretraining_pairs
import pretraining_series
import pretraining_text
from cells import mean_and_deviation
from pretraining_episodes import ADAPTED

Table = dict[str, dict[str, dict[str, Any]]]
"""Row -> seed -> figures."""

HIDDEN = ("wall seconds", "processor seconds", "seconds")
UNSHOWN = (
    "emoji: loss",
    "emoji: accuracy",
    "emoji: seconds",
    "emoji: rank",
    "emoji: channel",
    "emoji: probe",
    "mnist",
)
"""Starts of figures that the JSON file alone has."""
TITLES = {
    "images": "Images",
    "text": "Texts",
    "pairs": "Pairs of image and text",
    "series": "Series",
    "sinusoids": "Sinusoids",
    "episodes": "Episodes of new characters",
    "coloured": "ColoredMNIST",
    "importance": "Domain adaptive transfer",
    "costs": "What a step costs",
}
PROBE = "emoji: linear probe"
RANDOM_OF = {"mae": "random weights (ViT)", "supervised (ViT)": "random weights (ViT)"}
RANDOM = "random weights (ResNet)"
FAMILIES: dict[str, dict[str, tuple[str, ...]]] = {
    "standard supervised": {"images": ("supervised (ResNet)", "supervised (ViT)")},
    "meta-learning": {"episodes": ("maml, 5 shot", "fomaml, 5 shot", "reptile, 5 shot")},
    "causal learning": {"coloured": ("irm",)},
    "generative": {
        "images": ("mae",),
        "text": tuple(pretraining_text.OBJECTIVES),
        "series": ("masked time points", "next step"),
    },
    "contrastive": {"images": ("moco", "moco_v3", "simclr"), "pairs": ("clip", "siglip"), "series": ("simclr",)},
}
MODALITIES = {
    "standard supervised": "images, texts, series; whatever has labels",
    "meta-learning": "images, curves; whatever has a task loss",
    "causal learning": "images; whatever has a task loss and environments",
    "generative": "images, texts, series, trajectories",
    "contrastive": "images, pairs of image and text; needs views or pairs",
}
TASKS = {
    "standard supervised": "classes, several labels, numbers",
    "meta-learning": "classes; numbers of environments",
    "causal learning": "classes, several labels, numbers",
    "generative": "none: no labels are read",
    "contrastive": "none: no labels are read",
}


def markdown(machine: str, made: dict[str, Table]) -> str:
    """The whole page."""
    lines = ["# Pre-training, measured by what it is good for", "", machine, ""]
    lines.append(
        "Mean ± standard deviation over the seeds, whose number stands in each row; a single seed has no spread, and "
        "its order of methods should not be trusted within a few points. Accuracies are in %. Models and trainings "
        "are small; what had not settled is said under each table. Seconds are of the processor, of one thread."
    )
    for section, title in TITLES.items():
        if section in made:
            lines += ["", f"## {title}", "", *table(made[section]), "", *notes(section, made[section])]
    return "\n".join([*lines, "", *remarks(made)]) + "\n"


def table(rows: Table) -> list[str]:
    """A row of the section a line, a figure a column."""
    names = dict.fromkeys(name for runs in rows.values() for run in runs.values() for name in run)
    shown = [name for name in names if name not in HIDDEN and not name.startswith(UNSHOWN)]
    lines = ["| | seeds | " + " | ".join(shown) + " | seconds |", "|---|--:|" + "--:|" * (len(shown) + 1)]
    for row, runs in rows.items():
        cells = [row, str(len(runs))]
        for name in shown:
            values = [run[name] for run in runs.values() if name in run]
            cells.append(mean_and_deviation(values, 1 if abs(values[0]) >= 10 else 2) if values else "")
        cells.append(f"{statistics.mean(run['processor seconds'] for run in runs.values()):.0f}")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def notes(section: str, rows: Table) -> list[str]:
    """What a reader should know of a section."""
    return {"images": image_notes, "text": text_notes, "pairs": pair_notes, "coloured": coloured_notes}.get(
        section, lambda rows: []
    )(rows) + SETTINGS[section]


TOLD_BY = {
    "images": pretraining_images,
    "text": pretraining_text,
    "pairs": pretraining_pairs,
    "series": pretraining_series,
    "episodes": pretraining_episodes,
    "coloured": pretraining_coloured,
    "costs": pretraining_costs,
}
"""Section -> a module whose docstring says its settings, below the first line."""
SETTINGS = {
    **{name: [module.__doc__.split("\n\n", 1)[1].strip().replace("\n", " ")] for name, module in TOLD_BY.items()},
    "sinusoids": ["Squared errors. The paper trains 70,000 steps of 25 sinusoids; 1,500 of 8 have not settled."],
    "importance": ["Both see as many rows; see recipes/benchmarks/pretraining_importance.py."],
}


def image_notes(rows: Table) -> list[str]:
    """Every objective over random weights on the first target, and whether its probe still rose."""
    lines = ["Linear probe on `emoji` over random weights of the same network, seed by seed, and where it went in the"]
    lines += ["last third of the training (all labels, 381 held-out pictures):", ""]
    for row, runs in rows.items():
        random = rows.get(RANDOM_OF.get(row, RANDOM), {})
        gains = [run[PROBE] - random[seed][PROBE] for seed, run in runs.items() if seed in random]
        if row.startswith("random") or not gains:
            continue
        watched = [run for run in runs.values() if "emoji: probe 3/3" in run]
        last = [run["emoji: probe 3/3"] - run["emoji: probe 2/3"] for run in watched]
        rise = f"; {statistics.mean(last):+.1f} in the last third" if last else ""
        lines.append(f"- {row}: {mean_and_deviation(gains)} points{rise}")
    return [*lines, ""]


def text_notes(rows: Table) -> list[str]:
    """What settled and what did not."""
    lines = []
    for row, runs in rows.items():
        if not row.startswith(pretraining_text.RANDOM):
            falls = [run["held-out loss 2/3"] - run["held-out loss 3/3"] for run in runs.values()]
            lines.append(f"- {row}: its loss fell by {statistics.mean(falls):.2f} in the last third")
    return [*lines, ""]


def pair_notes(rows: Table) -> list[str]:
    return [f"By chance: {', '.join(f'{name} {value:.1f}' for name, value in pretraining_pairs.CHANCE.items())}.", ""]


def coloured_notes(rows: Table) -> list[str]:
    """DomainBed's own figures."""
    lines = [
        f"- published, {row}: "
        + ", ".join(f"{rule} {value}" for rule, value in zip(pretraining_coloured.RULES, values))
        for row, values in pretraining_coloured.PUBLISHED.items()
    ]
    return [*lines, ""]


def remarks(made: dict[str, Table]) -> list[str]:
    """The field's remarks table of pre-training with figures in place of stars; a dash where nothing was measured."""
    lines = ["## The field's remarks table", ""]
    lines.append(
        "Data efficiency: by how much the watched probe rose over the last two thirds of a training, in points "
        "(images). Label efficiency: fine-tuned on 10 labels a class over random weights of the same network, in "
        "points (images, series), on 33 a class (texts), of episodes over random weights that adapt alike, and of IRM "
        "over ERM, both chosen by the oracle. ± is over the methods of a family and the seeds."
    )
    lines += ["", "| family | modality scalability | task scalability | data efficiency | label efficiency |"]
    lines.append("|---|---|---|--:|--:|")
    for family, parts in FAMILIES.items():
        data, label = [], []
        for section, names in parts.items():
            for name in names:
                runs = made.get(section, {}).get(name, {})
                data += rises(runs)
                label += gains(section, name, runs, made.get(section, {}))
        figures = [mean_and_deviation(values) if values else "-" for values in (data, label)]
        lines.append(f"| {family} | {MODALITIES[family]} | {TASKS[family]} | {' | '.join(figures)} |")
    return lines


def rises(runs: dict[str, dict[str, Any]]) -> list[float]:
    return [run["emoji: probe 3/3"] - run["emoji: probe 1/3"] for run in runs.values() if "emoji: probe 3/3" in run]


def gains(section: str, name: str, runs: dict[str, dict[str, Any]], rows: Table) -> list[float]:
    """Points over random weights with the same seed."""
    figure, plain = {
        "images": ("emoji: fine-tuned", RANDOM_OF.get(name, RANDOM)),
        "text": ("fine-tuned", pretraining_text.RANDOM + name),
        "series": ("fine-tuned", pretraining_series.RANDOM),
        "episodes": ("accuracy", f"{ADAPTED}, 5 shot"),
        "coloured": ("oracle, average", "erm"),
    }.get(section, ("", ""))
    base = rows.get(plain, {})
    return [run[figure] - base[seed][figure] for seed, run in runs.items() if figure in run and seed in base]


def panels(made: dict[str, Table]) -> tuple[dict[str, dict[str, list[float]]], str, dict[str, str]]:
    """What `plot_accuracies` takes: title -> row -> values, the row drawn as a line, and labels of the axes."""
    drawn: dict[str, dict[str, list[float]]] = {}
    for target in pretraining_images.TARGETS:
        for figure in ("linear probe", "fine-tuned"):
            name, rows = f"{target}: {figure}", {}
            for row, runs in made.get("images", {}).items():
                values = [run[name] for run in runs.values() if name in run]
                rows |= {row: values} if values else {}
            drawn |= {name: rows} if rows else {}
    for section, figure in (("text", "fine-tuned"), ("series", "fine-tuned"), ("episodes", "accuracy")):
        if section in made:
            rows = {row: [run[figure] for run in runs.values()] for row, runs in made[section].items()}
            drawn[f"{TITLES[section]}: {figure}"] = rows
    return drawn, RANDOM, {}
