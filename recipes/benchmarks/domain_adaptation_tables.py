"""The domain-adaptation benchmark's tables: every method on every pair, families of methods, and validators."""

from __future__ import annotations

import json
import statistics
from typing import Any

from cells import mean_and_deviation
from domain_adaptation_pairs import (
    ACCURACY,
    BASELINES,
    FAMILIES,
    MODALITIES,
    PAIRS,
    SHORT_SOURCE_ONLY,
    SMALL_PAIRS,
    SOURCE_ONLY,
    SPECIAL_PAIRS,
    measure_of,
)


def measured(pair: str, row: dict[str, Any]) -> dict[str, float]:
    """Seed -> value, of the runs that did not fail."""
    values = {seed: measure_of(pair).of(run) for seed, run in row["runs"].items()}
    return {seed: value for seed, value in values.items() if value is not None}


def baseline_of(method: str, table: dict[str, Any]) -> str | None:
    """The row of source only that a method is compared with; None where there is none, or the method is one."""
    baseline = BASELINES.get(method, SOURCE_ONLY)
    return baseline if baseline in table and method not in (SOURCE_ONLY, SHORT_SOURCE_ONLY) else None


def gains(pair: str, method: str, table: dict[str, Any]) -> dict[str, float]:
    """Seed -> how much more a method reaches than its source-only baseline, of the seeds that both have."""
    baseline = baseline_of(method, table)
    if baseline is None:
        return {}
    own, other = measured(pair, table[method]), measured(pair, table[baseline])
    return {seed: own[seed] - other[seed] for seed in own if seed in other}


def gain(pair: str, method: str, table: dict[str, Any]) -> float | None:
    """The mean of the gains; None where the seeds share none."""
    found = gains(pair, method, table)
    return round(statistics.mean(found.values()), 1) if found else None


def comparison(pair: str, method: str, table: dict[str, Any]) -> str:
    """The gain in words."""
    gap = gain(pair, method, table)
    if gap is None:
        return ""
    return f"{gap:+.1f}{' (worse than source only)' if measure_of(pair).sign * gap < 0 else ''}"


def family_table(pairs: dict[str, Any]) -> list[str]:
    """Rows of Markdown: what each family gains over source only on the pairs with the same classes."""
    names = [pair for pair in pairs if pair not in SPECIAL_PAIRS and SOURCE_ONLY in pairs[pair]]
    lines = ["Points over source only: the median of a family's methods, and its best one.", ""]
    lines += ["| family | " + " | ".join(names) + " |", "|---" * (1 + len(names)) + "|"]
    for name, family in FAMILIES.items():
        if not any(set(family.methods) & pairs[pair].keys() for pair in names):
            continue
        cells = [name]
        for pair in names:
            table = pairs[pair]
            gains = {m: gain(pair, m, table) for m in family.methods if m in table}
            known = {method: value for method, value in gains.items() if value is not None}
            best = max(known, key=known.__getitem__, default=None)
            median = statistics.median(known.values()) if known else 0.0
            cells.append(f"{median:+.1f} (`{best}` {known[best]:+.1f})" if best else "")
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def remarks(pairs: dict[str, Any]) -> list[str]:
    """Rows of Markdown, the field's remarks table: what families gain with many and few rows, and where they work."""
    lines = [
        "Points over source only, mean over a family's methods and the pairs with the same classes; few rows: "
        f"{' and '.join(SMALL_PAIRS)}, with at most 1,000 labelled ones. Modalities and tasks are those of the pairs "
        "above on which a method of the family ran.",
        "",
        "| family | many rows | few rows | modalities | tasks | what the theory says |",
        "|---|--:|--:|---|---|---|",
    ]
    for name, family in FAMILIES.items():
        gains: dict[bool, list[float]] = {True: [], False: []}
        tasks, modalities = set(), set()
        for pair, table in pairs.items():
            ran = [method for method in family.methods if method in table]
            if ran:
                tasks.add("classes" if measure_of(pair) is ACCURACY else "numbers")
                modalities.add(MODALITIES[PAIRS[pair]["task"]])
            if pair not in SPECIAL_PAIRS:
                known = (gain(pair, method, table) for method in ran)
                gains[pair in SMALL_PAIRS] += [value for value in known if value is not None]
        points = [f"{statistics.mean(gains[few]):+.1f}" if gains[few] else "" for few in (False, True)]
        cells = [name, *points, ", ".join(sorted(modalities)), ", ".join(sorted(tasks)), family.theory]
        lines.append("| " + " | ".join(cells) + " |")
    return lines


def markdown(report: dict[str, Any], title: str) -> str:
    """A table of methods for each pair, then one of validators."""
    is_tuned = any(row["tuned"] for table in report["pairs"].values() for row in table.values())
    told = [
        "On target rows held out of the training, mean ± standard deviation over the seeds; no target label was read "
        "in training" + (f", and where settings were tuned `{report['tuned_by']}` chose them." if is_tuned else ".")
    ]
    if any(SHORT_SOURCE_ONLY in table for table in report["pairs"].values()):
        told.append(f"Translation is compared with `{SHORT_SOURCE_ONLY}`.")
    lines = [f"# {title}", "", report["machine"], "", " ".join(told)]
    for pair, table in report["pairs"].items():
        title = measure_of(pair).title
        lines += ["", f"## {pair}", "", f"| method | settings | seeds | {title} | over source only | seconds |"]
        lines.append("|---|---|--:|--:|--:|--:|")
        for method, row in table.items():
            seconds = [run["seconds"] for run in row["runs"].values() if run.get("seconds")]
            values = list(measured(pair, row).values())
            cells = (
                method,
                f"`{json.dumps(row['settings'])}`",
                str(len(row["runs"])),
                mean_and_deviation(values) if values else "failed",
                comparison(pair, method, table),
                f"{statistics.median(seconds):.0f}" if seconds else "",
            )
            lines.append("| " + " | ".join(cells) + " |")
    lines += ["", "## By family", "", *family_table(report["pairs"])]
    if set(SMALL_PAIRS) & report["pairs"].keys():
        lines += ["", "## The field's remarks table", "", *remarks(report["pairs"])]
    if not any(report["validators"].values()):
        return "\n".join(lines) + "\n"
    lines += ["", "## What each validator sees of the true target accuracy", ""]
    lines += [
        "Correlation over all finished runs of a pair (methods, settings and seeds), and the accuracy (or error) of "
        "the run that the validator likes best beside the best there is.",
        "",
        "| pair | validator | runs | Pearson | Spearman | Kendall | its choice | best |",
        "|---|---|--:|--:|--:|--:|--:|--:|",
    ]
    for pair, table in report["validators"].items():
        for name, row in sorted(table.items(), key=lambda item: -item[1]["spearman"]):
            figures = " | ".join(f"{row[key]:.2f}" for key in ("pearson", "spearman", "kendall"))
            choice = f"{row['choice']:.1f} | {row['best']:.1f}"
            lines.append(f"| {pair} | {name} | {row['runs']} | {figures} | {choice} |")
    return "\n".join(lines) + "\n"
