"""Charts as SVG that takes its colours from the page, so that they read in light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from html import escape
from typing import Any

COLOURS = 10
"""Colours that the page has; more groups repeat them."""
LINE, WIDTH = 30, 640


def dots(rows: Sequence[tuple[str, float, float | None]], unit: str) -> str:
    """A dot with its error bar a name, from the lowest value to the highest.

    Args:
        rows: name, value, and its standard error where it is known.
        unit: what the values are.
    """
    low = min(value - (error or 0.0) for _, value, error in rows)
    high = max(value + (error or 0.0) for _, value, error in rows)
    span = (high - low) or 1.0
    left, right, height = 220, 80, LINE * len(rows) + 26

    def x(value: float) -> float:
        return left + (value - low) / span * (WIDTH - left - right)

    parts = []
    for place, (name, value, error) in enumerate(rows):
        y = place * LINE + 14
        whole = f"<title>{escape(name)}</title>{short(name)}"
        parts.append(f'<text x="{left - 14}" y="{y + 4}" text-anchor="end">{whole}</text>')
        parts.append(f'<path class="grid" d="M{left} {y}H{WIDTH - right}"/>')
        if error is not None:
            first, last = x(value - error), x(value + error)
            path = f"M{first:.1f} {y}H{last:.1f}M{first:.1f} {y - 5}v10M{last:.1f} {y - 5}v10"
            parts.append(f'<path class="error" d="{path}"/>')
        parts.append(f'<circle class="value" cx="{x(value):.1f}" cy="{y}" r="5"/>')
        parts.append(f'<text x="{WIDTH - right + 12}" y="{y + 4}">{value:.3f}</text>')
    parts.append(f'<text class="axis" x="{left}" y="{height - 6}">{escape(unit)}, ± one standard error</text>')
    return svg(parts, WIDTH, height, f"{unit} with standard errors")


def lines(curves: Mapping[str, Sequence[Sequence[float]]], x_label: str, y_label: str) -> str:
    """Curves over the steps with a legend.

    Args:
        curves: name -> (x, y) points.
        x_label: under the axis.
        y_label: beside it.
    """
    curves = {name: [one for one in points if math.isfinite(one[1])] for name, points in curves.items()}
    points = [one for curve in curves.values() for one in curve]
    if not points:
        return ""
    left, top, plot_width, plot_height = 52, 10, WIDTH - 70, 230
    x_high, y_high = max(x for x, _ in points) or 1, max(y for _, y in points)
    y_low = min(0.0, *(y for _, y in points))
    span = (y_high - y_low) or 1.0

    def at(x: float, y: float) -> tuple[float, float]:
        return left + x / x_high * plot_width, top + (y_high - y) / span * plot_height

    parts = []
    for share in (0.0, 0.5, 1.0):
        y = top + share * plot_height
        value = y_high - share * span
        parts.append(f'<path class="grid" d="M{left} {y:.1f}H{left + plot_width}"/>')
        parts.append(f'<text class="axis" x="{left - 6}" y="{y + 4:.1f}" text-anchor="end">{value:.2g}</text>')
    for number, curve in enumerate(curves.values()):
        path = "L".join(f"{x:.1f} {y:.1f}" for x, y in (at(*one) for one in curve))
        parts.append(f'<path class="line c{number % COLOURS}" d="M{path}"/>')
    bottom = top + plot_height + 18
    parts.append(f'<text class="axis" x="{left}" y="{bottom}">{escape(y_label)}</text>')
    last = f"{escape(x_label)}, to {x_high:g}"
    parts.append(f'<text class="axis" x="{left + plot_width}" y="{bottom}" text-anchor="end">{last}</text>')
    return svg(parts, WIDTH, bottom + 8, f"{y_label} over {x_label}") + legend(list(curves))


def scatter(points: Sequence[Sequence[float]], groups: Sequence[str], order: Sequence[str], title: str) -> str:
    """Points in two dimensions, coloured by group.

    Args:
        points: (x, y).
        groups: of each point.
        order: of the groups, as in the legend.
        title: of the picture.
    """
    size, edge = 300, 10
    xs, ys = [x for x, _ in points], [y for _, y in points]
    spans = [(max(values) - min(values)) or 1.0 for values in (xs, ys)]
    number = {name: place for place, name in enumerate(order)}
    parts = [f'<rect class="frame" x="0.5" y="0.5" width="{size - 1}" height="{size - 1}" rx="6"/>']
    for (x, y), group in zip(points, groups):
        a = edge + (x - min(xs)) / spans[0] * (size - 2 * edge)
        b = size - edge - (y - min(ys)) / spans[1] * (size - 2 * edge)
        label = f"<title>{escape(group)}</title>"
        colour = number[group] % COLOURS
        parts.append(f'<circle class="c{colour}" cx="{a:.1f}" cy="{b:.1f}" r="3">{label}</circle>')
    return f"<figure>{svg(parts, size, size, title)}<figcaption>{escape(title)}</figcaption></figure>"


def legend(names: Sequence[str]) -> str:
    """The colour of each name."""
    items = "".join(
        f'<li><span class="dot c{place % COLOURS}"></span>{escape(name)}</li>' for place, name in enumerate(names)
    )
    return f'<ul class="legend">{items}</ul>'


def confusion(names: Sequence[str], counts: Sequence[Sequence[int]]) -> str:
    """A table with a cell a pair of classes, shaded by the share of the true class."""
    head = "".join(f"<th scope=col>{escape(name)}</th>" for name in names)
    body = []
    for name, row in zip(names, counts):
        total = sum(row) or 1
        cells = "".join(f'<td style="--share:{100 * count / total:.0f}%">{count}</td>' for count in row)
        body.append(f"<tr><th scope=row>{escape(name)}</th>{cells}</tr>")
    corner = "<th class=corner>true \\ predicted</th>"
    return f'<table class="confusion"><thead><tr>{corner}{head}</tr></thead><tbody>{"".join(body)}</tbody></table>'


def short(name: str, most: int = 30) -> str:
    """A name that fits beside a bar: its end, which tells folders and models apart."""
    return escape(name if len(name) <= most else "…" + name[-most + 1 :])


def svg(parts: Sequence[Any], width: float, height: float, title: str) -> str:
    size, kind = f"0 0 {width:.0f} {height:.0f}", "chart" if width == WIDTH else "picture"
    return f'<svg class="{kind}" viewBox="{size}" role="img" aria-label="{escape(title)}">{"".join(parts)}</svg>'
