"""Rank candidates for a dataset, from names or a query to the Hub to a saved ranking that can be gone on with."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_transfer.data.bundled import load
from hf_transfer.data.forecasts import LABELS, PAST, checked_settings, scale_of, standardised, windows_of
from hf_transfer.data.wide_tables import with_series_to_rank
from hf_transfer.hub import check_can_write
from hf_transfer.models.short_names import model_folder
from hf_transfer.ranking import Ranking, find_models, rank_models
from hf_transfer.ranking.candidates import read_models
from hf_transfer.ranking.journal import journal_files


def run_ranking(
    models: Sequence[str],
    dataset: str,
    *,
    split: str | None = None,
    query: Mapping[str, Any] | None = None,
    output_dir: Path | None = None,
    resume: bool = False,
    overwrite: bool = False,
    forecasting: Mapping[str, Any] | None = None,
    **options: Any,
) -> Ranking:
    """Rank; with an `output_dir` finished rows are kept there while running, and the table, JSON and chart at the end.

    Args:
        models: folders, Hub ids, and text files with one of these a line.
        dataset: bundled name, Hub id, folder or file.
        split: which split of it.
        query: keywords of `find_models`, whose answer joins `models`; None asks nothing.
        output_dir: a new or empty folder.
        resume: go on in an `output_dir` that holds a ranking; what is unchanged is not scored again.
        overwrite: start over there.
        forecasting: rank on windows of a table whose rows are steps, as {context_length: 96, prediction_length: 24},
            standardised by their own mean and deviation.
        options: keywords of `rank_models`.

    Raises:
        ValueError: no candidates, an unusable dataset or a wrong option; all before any model is fetched.
        FileExistsError: `output_dir` is in use.
    """
    if resume and overwrite:
        raise ValueError("`resume` keeps what is in output_dir and `overwrite` replaces it: give one of them.")
    if output_dir is not None:
        check_ranking_folder(output_dir, resume, overwrite)
    rows = load(dataset, split)
    if forecasting is not None:
        rows = windows_to_rank(windows_of(rows, forecasting, "ranking"), forecasting)
    else:
        rows = with_series_to_rank(rows, None, options.get("label_column"))
    names = [model_folder(name) for word in models for name in read_models(word)]
    if query is not None:
        found = find_models(**query)
        if not found and not names:
            wanted = {name: value for name, value in query.items() if value}
            raise ValueError(f"the Hub has no model that matches {wanted}; give ids, or ask for less.")
        names += found
    return rank_models(names, rows, output_dir=output_dir, resume=not overwrite, **options)


def windows_to_rank(windows: Dataset, forecasting: Mapping[str, Any]) -> Dataset:
    """What is ranked of windows of a table: past and future, standardised by their own mean and deviation."""
    windows = windows.select_columns([PAST, LABELS])
    return standardised(windows, scale_of(windows)) if checked_settings(forecasting)["standardise"] else windows


def check_ranking_folder(folder: Path, resume: bool, overwrite: bool) -> None:
    """Refuse a folder that holds a ranking, unless told what to do with it, and one that holds anything else.

    Raises:
        FileExistsError: it is in use.
        PermissionError: it cannot be written.
    """
    holds_ranking = bool(journal_files(folder)) or (folder / "ranking.json").is_file()
    if holds_ranking and not (resume or overwrite):
        raise FileExistsError(
            f"`{folder}` holds a ranking: go on with --resume, start over with --overwrite, or choose another "
            "--output-dir."
        )
    if not holds_ranking and folder.is_dir() and any(folder.iterdir()):
        raise FileExistsError(f"`{folder}` is not empty and holds no ranking: choose another --output-dir.")
    # A folder that is there is written into, so that it is the place where a folder has to be possible.
    check_can_write(folder / "any" if folder.is_dir() else folder)
