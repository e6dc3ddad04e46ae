"""Rank pre-trained models for a dataset without fine-tuning any.

Each model is run once over the data; its features go straight into the statistics of a score, for all asked layers at
once, so that memory does not grow with the dataset. The next model downloads while the present one runs. A model that
fails is a row with its reason.
"""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from concurrent.futures import Future
from dataclasses import asdict
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import parse_flag_from_env
from datasets import Dataset
from rich.progress import Progress

from hf_transfer.data.conversion import as_dataset
from hf_transfer.data.label_columns import LabelColumn, with_joined_columns
from hf_transfer.modeling.inputs import numbered_labels
from hf_transfer.models.short_names import packaged_name
from hf_transfer.ranking.baseline import baseline_name
from hf_transfer.ranking.candidates import Access, Fetched, fetch, fetched_ahead, read_models
from hf_transfer.ranking.journal import Journal
from hf_transfer.ranking.ranking import NothingScoredError, Ranking, RankingRow
from hf_transfer.ranking.scorer import ModelScorer
from hf_transfer.ranking.settings import DEFAULT_SCORES, RankSettings
from hf_transfer.ranking.sharing import sharing_of

FIRST_BATCH_SIZE = 64


def rank_models(
    models: Sequence[str | os.PathLike] | str | os.PathLike,
    dataset: Dataset,
    *,
    score: str | Sequence[str] = DEFAULT_SCORES,
    score_options: Mapping[str, Any] | None = None,
    layers: str | Sequence[int] = "all",
    pooling: str = "mean",
    label_column: LabelColumn = None,
    problem_type: str | None = None,
    input_columns: str | Sequence[str] | None = None,
    batch_size: int | str = "auto",
    max_samples: int | None = None,
    max_params: int | None = None,
    max_length: int | None = None,
    random_baseline: bool = False,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    cache_dir: str | None = None,
    token: str | None = None,
    free_disk: bool = False,
    output_dir: str | os.PathLike | None = None,
    resume: bool = True,
    seed: int = 0,
    num_workers: int = 0,
    parallel: str = "auto",
    progress: bool = True,
) -> Ranking:
    """Rank models by how well their frozen features explain the labels of a dataset.

    Args:
        models: local folders and Hub ids (also of PEFT adapters), or a text file with one a line; see `find_models`
            for a query to the Hub.
        dataset: one split. Its columns are model inputs (`pixel_values`, `input_ids`, ...) or images, text, split
            words and series, which each model's own processor turns into inputs, and a label column: classes, values,
            several labels ([C] each), or a class a token.
        score: names in `hf_transfer.ranking.SCORES`, or one of them. All come from one pass over the features; the
            first orders the ranking, and how far the others agree is told.
        score_options: keywords of the class of each score by its name, or of the first score's class.
        layers: "all": a score for each, ranked by the best; "best": only the best is kept; "last"; or indices. A model
            that shows its last layer alone is scored at that one.
        pooling: "mean", "cls", "last" or "max" over the tokens.
        label_column, input_columns: needed only where the names leave a doubt. Several columns of 0 and 1 are labels
            that may hold at once, of other numbers values.
        problem_type: what the labels are, where whole numbers leave a doubt: "regression",
            "single_label_classification" or "multi_label_classification".
        batch_size: rows at once; "auto" starts at 64. Either is halved when memory runs out.
        max_samples: rank on a random part of the dataset, drawn by `seed`.
        max_params: models with more parameters become a row with that reason, if possible before their download.
        max_length: cut text after so many tokens.
        random_baseline: add a row of random weights for each architecture among the models.
        dtype: of the weights, for example "bfloat16"; statistics are always float64.
        device: by default the accelerator of this process.
        trust_remote_code, allow_pickle: run code, or load pickled weights, of strangers.
        cache_dir, token: for the Hub.
        free_disk: remove each model after use unless it was in the cache before.
        output_dir: keep finished rows here while running, continue from them, and save the ranking at the end.
        resume: False scores again what is finished in `output_dir`.
        num_workers: processes that read the data.
        parallel: what several processes share: "data", the rows of each model; "models", so that each process runs
            other models; or "auto", models where there are enough of them and few rows. The ranking is the same.
        progress: show a progress bar.

    Raises:
        ValueError: for a wrong keyword or an unusable dataset, or when no model could be scored, once `output_dir` is
            written. What is wrong with one of several models is a row of the result.
    """
    # Later `PartialState()` are this one; it does not read the launcher's choice of the CPU by itself.
    state = PartialState(cpu=parse_flag_from_env("ACCELERATE_USE_CPU"))
    if label_column is not None and not isinstance(label_column, str):
        dataset = with_joined_columns(as_dataset(dataset, "dataset", ("train",)), "given", label_column)
        label_column = "labels"
    settings = RankSettings(
        score=score if isinstance(score, str) else only_or_all(score),
        score_options=dict(score_options or {}),
        layers=layers if isinstance(layers, str) else tuple(layers),
        pooling=pooling,
        label_column=label_column,
        problem_type=problem_type,
        input_columns=input_columns if isinstance(input_columns, str | None) else tuple(input_columns),
        max_samples=max_samples,
        max_length=max_length,
        dtype=dtype,
        seed=seed,
    )
    access = Access(cache_dir, token, trust_remote_code, allow_pickle, max_params, free_disk)
    names = read_models(models)
    dataset = choose_rows(dataset, settings)
    facts = {**asdict(settings), "dataset": dataset._fingerprint, "dataset_rows": len(dataset)}
    if problem_type is None:
        del facts["problem_type"]  # so that rows of a journal from before there was such a keyword are found
    sharing = sharing_of(parallel, len(names), len(dataset), free_disk)
    scorer = ModelScorer(dataset, settings, access, first_batch_size(batch_size), sharing, device, num_workers)
    rows = rank_rows(names, scorer, Journal(output_dir, facts, resume), progress, random_baseline)
    ranking = Ranking(tuple(rows), settings.scores[0], facts)
    if output_dir is not None and state.is_main_process:
        ranking.save(output_dir)
    if not ranking.scored:
        raise NothingScoredError(ranking)
    return ranking


def only_or_all(scores: Sequence[str]) -> str | tuple[str, ...]:
    """A list of one score is that score: its finished rows are the same."""
    return scores[0] if len(scores) == 1 else tuple(scores)


def rank_rows(
    names: Sequence[str], scorer: ModelScorer, journal: Journal, progress: bool, random_baseline: bool = False
) -> list[RankingRow]:
    """One row a name, and one an architecture if asked; finished ones come from the journal."""
    state, sharing = PartialState(), scorer.sharing
    # Every process has read the journal before any appends to it.
    state.wait_for_everyone()
    own = sharing.names(names)

    def get(name: str) -> Fetched:
        return fetch(name, scorer.access, lambda name, revision: journal.find(name, revision) is not None)

    rows = []
    with Progress(disable=not (progress and state.is_main_process)) as bar, fetched_ahead(own, get) as candidates:
        task = bar.add_task("Ranking", total=len(own))
        for name, fetched in candidates:
            bar.update(task, description=f"Ranking {packaged_name(name)}")
            theirs = finished_rows(name, fetched, journal, scorer, random_baseline)
            if theirs is None:
                theirs = scorer.rows(name, fetched, random_baseline)
                if sharing.keeps_rows:
                    for row in theirs:
                        journal.add(row)
            rows.append(theirs)
            bar.advance(task)
    every = sharing.joined(rows)
    if state.is_main_process:
        journal.join()
    scorer.free(scorer.removable_bases)
    return every


def finished_rows(
    name: str, fetched: Future[Fetched], journal: Journal, scorer: ModelScorer, with_baseline: bool
) -> list[RankingRow] | None:
    """The journal's rows of a model, where every process that runs it has them; None where it is to be scored."""
    rows = None
    if fetched.exception() is None and fetched.result().folder is None:
        row = journal.find(name, fetched.result().revision)
        rows = [row]
        if with_baseline and row.architecture not in scorer.architectures:
            baseline = journal.find(baseline_name(name), row.revision)
            rows = None if baseline is None else [row, baseline]
    if not all(scorer.sharing.outcomes(rows is not None)):
        return None
    if with_baseline:
        scorer.architectures.add(rows[0].architecture)
    return rows


def first_batch_size(batch_size: int | str) -> int:
    if batch_size == "auto":
        return FIRST_BATCH_SIZE
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'`batch_size` should be "auto" or a positive number, got {batch_size!r}.')
    return batch_size


def choose_rows(dataset: Dataset, settings: RankSettings) -> Dataset:
    """The dataset, or a random part of it in its own order.

    Raises:
        ValueError: when it is no `datasets.Dataset`, for example all splits at once, or has no rows or no label.
    """
    dataset = as_dataset(dataset, "dataset", ("train",))
    if len(dataset) == 0:
        raise ValueError("The dataset has no rows.")
    dataset = numbered_labels(dataset, settings.label_column, settings.problem_type, settings.input_columns)
    if settings.max_samples is None or settings.max_samples >= len(dataset):
        return dataset
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(settings.seed))
    return dataset.select(order[: settings.max_samples].sort().values.tolist())
