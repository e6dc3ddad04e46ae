"""The models of a saved ranking, best first."""

from __future__ import annotations

import json
from pathlib import Path

from hf_transfer.models.revisions import pinned

RANKING_FILE = "ranking.json"


def ranked_models(folder: str, top: int) -> list[str]:
    """The names of the `top` best models of a ranking that `hf-transfer rank --output-dir FOLDER` saved.

    Those on the Hub are ORG/NAME@COMMIT, of the weights that were ranked. Baselines of random weights and
    models without a score are none of them.

    Args:
        folder: of the ranking.
        top: how many, at least 1.

    Raises:
        ValueError: there is no ranking, or it has fewer models.
    """
    path = Path(folder) / RANKING_FILE
    if not path.is_file():
        raise ValueError(
            f"`ranking` should be the folder of a saved ranking, and `{folder}` holds no {RANKING_FILE}: "
            f"`hf-transfer rank MODEL... --dataset DATA --output-dir {folder}` writes one."
        )
    try:
        rows = json.loads(path.read_text(encoding="utf-8"))["rows"]
        scored = [row for row in rows if row["score"] is not None and not row.get("is_baseline")]
        names = [pinned(row["model"], row.get("revision")) for row in scored]
    except (ValueError, KeyError, TypeError) as error:
        raise ValueError(f"`{path}` is no saved ranking: {type(error).__name__} {error}. Rank again.") from error
    if not 1 <= top <= len(names):
        raise ValueError(f"`top` should be from 1 to {len(names)}, the scored models of `{folder}`, got {top}.")
    return names[:top]
