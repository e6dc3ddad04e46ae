"""A closer look at the chosen model, for the report: confusion, examples it gets wrong, features before and after."""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from datasets import Dataset, Image, Value, load_from_disk
from PIL import Image as PILImage
from transformers import set_seed

from hf_transfer.core.task_loss import SINGLE_LABEL, probabilities
from hf_transfer.evaluation.plots import confusion_counts, embed
from hf_transfer.models.revisions import split_revision
from hf_transfer.runs.lifecycle.candidates import revision_of_hub
from hf_transfer.runs.lifecycle.outcome import Outcome
from hf_transfer.runs.lifecycle.outputs import Outputs, measured_parts, outputs_on
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE
from hf_transfer.runs.lifecycle.stages import Setting
from hf_transfer.runs.lifecycle.training import usual_metric

PIECE = "inspection"
VERSION = 2
"""Of what is kept; another is made anew."""
ROWS = 150
"""Of each kind in the pictures of the features."""
WRONG, LONGEST_TEXT, THUMBNAIL = 12, 300, 96


def inspect(outcome: Outcome, place: Setting) -> dict[str, Any]:
    """What the report shows of the chosen model beside its figures."""
    record = outcome.chosen.best
    settings, folder = record["settings"], Path(place.rows["folder"])
    start = next(one for one in outcome.models if one["shown"] == outcome.chosen.model)
    depends = {"model": Path(record["model"]).parent.name, "rows": place.rows["fingerprints"], "version": VERSION}
    found = place.store.find(PIECE, depends)
    if found is not None:
        return found
    role = next(one for one in ("test", "validation", "train") if one in place.rows["rows"])
    labelled = load_from_disk(str(folder / role))
    with place.progress.quiet():
        result: dict[str, Any] = {"role": role, "confusion": None, "wrong": [], "embeddings": {"groups": []}}
        if place.rows.get("task") is None:
            seen = outputs_on(record["model"], labelled, settings)
            result |= mistakes(seen, labelled)
            result |= {"figures": seen.metrics, "per_class": seen.per_class}
            result["embeddings"] = embeddings(record["model"], start, settings, folder, role, seen.names)
        else:  # rows have no class and no features of their own
            measured = measured_parts(record["model"], folder / role, settings)
            result |= {"figures": dict(measured), "per_class": dict(measured.per_class)}
        result["metric"] = usual_metric(result["figures"])
    return place.store.keep(PIECE, depends, result)


def mistakes(seen: Outputs, rows: Dataset) -> dict[str, Any]:
    """The confusion matrix and the most certain mistakes; neither where rows have no single class.

    Args:
        seen: outputs for the rows.
        rows: labelled.
    """
    if seen.problem_type != SINGLE_LABEL:
        return {"confusion": None, "wrong": []}
    shares = probabilities(torch.from_numpy(seen.logits), seen.problem_type).numpy()
    said, labels = shares.argmax(axis=1), seen.labels
    counts = confusion_counts(labels, said, len(seen.names))
    wrong = np.flatnonzero((said != labels) & (labels >= 0))
    wrong = wrong[np.argsort(-shares[wrong, said[wrong]], kind="stable")][:WRONG]
    examples = [
        {
            "row": int(place),
            **shown(rows, int(place)),
            "label": seen.names[labels[place]],
            "predicted": seen.names[said[place]],
            "probability": float(shares[place, said[place]]),
        }
        for place in wrong
    ]
    return {"confusion": {"names": seen.names, "counts": counts.tolist()}, "wrong": examples}


def shown(rows: Dataset, place: int) -> dict[str, str]:
    """A row as text, and as a small picture where it has one."""
    row, found = rows.with_format(None)[place], {}
    texts = [name for name, one in rows.features.items() if isinstance(one, Value) and one.dtype.endswith("string")]
    if texts:
        text = " | ".join(str(row[name]) for name in texts)
        found["text"] = text if len(text) <= LONGEST_TEXT else text[:LONGEST_TEXT] + " ..."
    pictures = [name for name, one in rows.features.items() if isinstance(one, Image)]
    if pictures and isinstance(row[pictures[0]], PILImage.Image):
        found["picture"] = thumbnail(row[pictures[0]])
    return found


def thumbnail(picture: PILImage.Image) -> str:
    """A data URL of a small PNG."""
    if picture.mode not in ("L", "RGB", "RGBA"):
        picture = picture.convert("RGB")
    picture = picture.copy()
    picture.thumbnail((THUMBNAIL, THUMBNAIL))
    file = io.BytesIO()
    picture.save(file, format="PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()


def embeddings(
    after: str, start: Mapping[str, Any], settings: Mapping[str, Any], folder: Path, role: str, names: list[str]
) -> dict[str, Any]:
    """Features in two dimensions under the model that was started from and under the adapted one.

    Args:
        after: folder of the adapted model.
        start: the candidate that it started from; random weights have no features to show.
        settings: of its training.
        folder: of the written rows.
        role: of the labelled rows to show.
        names: of the model's outputs.
    """
    parts = {"": few(load_from_disk(str(folder / role)))}
    if (folder / "target").is_dir():
        parts = {
            "source": few(load_from_disk(str(folder / ("source" if (folder / "source").is_dir() else "train")))),
            "target": few(load_from_disk(str(folder / "target"))),
        }
    models = (
        {"after": after} if ARCHITECTURE in start else {"before": split_revision(start["name"])[0], "after": after}
    )
    found: dict[str, Any] = {}
    for title, model in models.items():
        set_seed(0)
        is_new = title == "before"
        options = {"class_names": names, **revision_of_hub(start)} if is_new else {}
        seen = {part: outputs_on(model, rows, settings, **options) for part, rows in parts.items()}
        points = embed(np.concatenate([one.features.reshape(len(one.features), -1) for one in seen.values()]))
        found[title] = [[float(x), float(y)] for x, y in points]
        groups = [group for part, one in seen.items() for group in groups_of(part, one, names)]
    return {**found, "groups": groups}


def groups_of(part: str, seen: Outputs, names: list[str]) -> list[str]:
    """What the points of a picture are coloured by: the domain, or else the class."""
    if part:
        return [part] * len(seen.features)
    if seen.problem_type != SINGLE_LABEL:
        return ["rows"] * len(seen.features)
    return [names[label] if label >= 0 else "no label" for label in seen.labels]


def few(rows: Dataset) -> Dataset:
    """At most `ROWS` evenly spaced rows."""
    return rows.select(np.linspace(0, len(rows) - 1, min(ROWS, len(rows))).astype(int))
