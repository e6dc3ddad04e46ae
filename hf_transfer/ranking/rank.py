"""Rank pre-trained models for a dataset without fine-tuning any.

Each model is run once over the data; its features go straight into the statistics of a score, for all asked layers at
once, so that memory does not grow with the dataset. A model that fails is a row with its reason.
"""

from __future__ import annotations

import gc
import os
import time
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from datasets import Dataset
from rich.progress import Progress
from torch import Tensor

from hf_transfer.hub import explain_hub_error, pull_model
from hf_transfer.objective import IGNORED_LABEL
from hf_transfer.ranking.features import POOLINGS, FeatureExtractor, check_layers
from hf_transfer.ranking.inputs import choose_columns, make_batches
from hf_transfer.ranking.loading import Candidate, load_candidate, load_processor
from hf_transfer.ranking.ranking import Ranking, RankingRow
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.score import Score, TransferabilityScore

FIRST_BATCH_SIZE = 64


@dataclass(frozen=True)
class RankSettings:
    """What the scores of a ranking depend on; see `rank_models`."""

    score: str
    layers: str | tuple[int, ...]
    pooling: str
    label_column: str | None
    input_columns: str | tuple[str, ...] | None
    max_samples: int | None
    max_length: int | None
    dtype: str
    seed: int

    def __post_init__(self):
        score_class(self.score)
        check_layers(self.layers)
        if self.pooling not in POOLINGS:
            raise ValueError(f"`pooling` should be one of {list(POOLINGS)}, got {self.pooling!r}.")
        if self.max_samples is not None and self.max_samples < 2:
            raise ValueError(f"`max_samples` should be at least 2, got {self.max_samples}.")


@dataclass(frozen=True)
class Access:
    """How candidates are fetched and loaded; see `rank_models`."""

    cache_dir: str | None
    token: str | None
    trust_remote_code: bool
    allow_pickle: bool
    max_params: int | None


def rank_models(
    models: Sequence[str | os.PathLike] | str | os.PathLike,
    dataset: Dataset,
    *,
    score: str = "logme",
    layers: str | Sequence[int] = "last",
    pooling: str = "mean",
    label_column: str | None = None,
    input_columns: str | Sequence[str] | None = None,
    batch_size: int | str = "auto",
    max_samples: int | None = None,
    max_params: int | None = None,
    max_length: int | None = None,
    dtype: str = "float32",
    device: str | torch.device | None = None,
    trust_remote_code: bool = False,
    allow_pickle: bool = False,
    cache_dir: str | None = None,
    token: str | None = None,
    seed: int = 0,
    num_workers: int = 0,
    progress: bool = True,
) -> Ranking:
    """Rank models by how well their frozen features explain the labels of a dataset.

    Args:
        models: local folders and Hub ids.
        dataset: one split. Its columns are model inputs (`pixel_values`, `input_ids`, ...) or images and text, which
            each model's own processor turns into inputs, and a label column.
        score: a name in `hf_transfer.ranking.SCORES`.
        layers: "last", "all" (a score for each, ranked by the best), "best" (the same), or indices.
        pooling: "mean", "cls", "last" or "max" over the tokens.
        label_column, input_columns: needed only where the names leave a doubt.
        batch_size: rows at once; "auto" starts at 64. Either is halved when memory runs out.
        max_samples: rank on a random part of the dataset, drawn by `seed`.
        max_params: skip models with more parameters.
        max_length: cut text after so many tokens.
        dtype: of the weights, for example "float32" or "bfloat16"; statistics are always float64.
        device: by default the accelerator of this process.
        trust_remote_code, allow_pickle: run code, or load pickled weights, of strangers.
        cache_dir, token: for the Hub.
        num_workers: processes that read the data.
        progress: show a progress bar.

    Raises:
        ValueError: for a wrong keyword or an unusable dataset. What is wrong with one model is a row of the result.
    """
    settings = RankSettings(
        score=score,
        layers=layers if isinstance(layers, str) else tuple(layers),
        pooling=pooling,
        label_column=label_column,
        input_columns=input_columns if isinstance(input_columns, str | None) else tuple(input_columns),
        max_samples=max_samples,
        max_length=max_length,
        dtype=dtype,
        seed=seed,
    )
    access = Access(cache_dir, token, trust_remote_code, allow_pickle, max_params)
    names = [os.fspath(name) for name in ([models] if isinstance(models, str | os.PathLike) else models)]
    dataset = choose_rows(dataset, settings)
    first_batch_size = FIRST_BATCH_SIZE if batch_size == "auto" else check_batch_size(batch_size)
    scorer = ModelScorer(dataset, settings, access, first_batch_size, device, num_workers)
    with Progress(disable=not (progress and PartialState().is_main_process)) as bar:
        task = bar.add_task("Ranking", total=len(names))
        rows = []
        for name in names:
            bar.update(task, description=f"Ranking {name}")
            rows.append(scorer.row(name))
            bar.advance(task)
    return Ranking(tuple(rows), score, {**asdict(settings), "rows": len(dataset), "dataset": dataset._fingerprint})


def check_batch_size(batch_size: int | str) -> int:
    if not isinstance(batch_size, int) or batch_size < 1:
        raise ValueError(f'`batch_size` should be "auto" or a positive number, got {batch_size!r}.')
    return batch_size


def choose_rows(dataset: Dataset, settings: RankSettings) -> Dataset:
    """The dataset, or a random part of it, in a fixed order.

    Raises:
        ValueError: when it is no `datasets.Dataset`, for example all splits at once.
    """
    if not isinstance(dataset, Dataset):
        raise ValueError(f"`dataset` should be one split, a datasets.Dataset, got {type(dataset).__name__}.")
    if len(dataset) == 0:
        raise ValueError("The dataset has no rows.")
    if settings.max_samples is None or settings.max_samples >= len(dataset):
        return dataset
    order = torch.randperm(len(dataset), generator=torch.Generator().manual_seed(settings.seed))
    return dataset.select(order[: settings.max_samples].sort().values.tolist())


@dataclass
class Outcome:
    """What one process found out about one model."""

    accumulators: dict[int, TransferabilityScore]
    reason: str | None
    facts: dict[str, Any]


class ModelScorer:
    """Scores one model after another on the same rows; every process reads its own part of them."""

    def __init__(
        self,
        dataset: Dataset,
        settings: RankSettings,
        access: Access,
        batch_size: int,
        device: str | torch.device | None,
        num_workers: int,
    ):
        self.state = PartialState()
        share = -(-len(dataset) // self.state.num_processes)
        self.first_row = min(share * self.state.process_index, len(dataset))
        self.part = dataset.select(range(self.first_row, min(self.first_row + share, len(dataset))))
        self.dataset, self.settings, self.access = dataset, settings, access
        self.batch_size, self.num_workers = batch_size, num_workers
        self.device = torch.device(device) if device is not None else self.state.device

    def row(self, name: str) -> RankingRow:
        """The row of one model; whatever goes wrong with it becomes the row's reason."""
        outcome = self.try_model(name)
        outcomes = gather_object([outcome]) if self.state.num_processes > 1 else [outcome]
        reason = next((other.reason for other in outcomes if other.reason), None)
        if reason:
            return RankingRow(model=name, reason=reason, **outcome.facts)
        start = time.perf_counter()
        try:
            scores = compute_scores(outcomes)
        except (ValueError, RuntimeError) as error:
            return RankingRow(model=name, reason=explain(error, name), **outcome.facts)
        seconds = outcome.facts.pop("seconds_score") + time.perf_counter() - start
        layer = max(scores, key=lambda layer: scores[layer].value)
        best = scores[layer]
        return RankingRow(
            model=name,
            score=best.value,
            standard_error=best.standard_error,
            layer=layer,
            layers=scores,
            seconds_score=seconds,
            **outcome.facts,
        )

    def try_model(self, name: str) -> Outcome:
        """Run this process's part of the data through one model."""
        facts: dict[str, Any] = {}
        try:
            start = time.perf_counter()
            candidate = self.load(name)
            facts |= {"revision": candidate.revision, "parameters": candidate.parameters}
            facts["seconds_load"] = time.perf_counter() - start
            return Outcome(self.accumulate(candidate, facts), None, facts)
        except Exception as error:
            return Outcome({}, explain(error, name), facts)
        finally:
            candidate = None
            release_memory()

    def load(self, name: str) -> Candidate:
        access = self.access
        folder = pull_model(name, token=access.token, cache_dir=access.cache_dir, allow_pickle=access.allow_pickle)
        candidate = load_candidate(
            name,
            folder,
            dtype=self.settings.dtype,
            trust_remote_code=access.trust_remote_code,
            allow_pickle=access.allow_pickle,
        )
        if access.max_params is not None and candidate.parameters > access.max_params:
            raise ValueError(f"It has {candidate.parameters:,} parameters, more than `max_params`.")
        candidate.model.to(self.device)
        return candidate

    def accumulate(self, candidate: Candidate, facts: dict[str, Any]) -> dict[int, TransferabilityScore]:
        """One pass over the data; out of memory halves the batch and starts the pass again."""
        batch_size = self.batch_size
        while True:
            try:
                facts["batch_size"] = batch_size
                return self.one_pass(candidate, batch_size, facts)
            except (torch.OutOfMemoryError, MemoryError):
                if batch_size == 1:
                    raise
                batch_size //= 2
            release_memory()

    def one_pass(self, candidate: Candidate, batch_size: int, facts: dict[str, Any]) -> dict[int, TransferabilityScore]:
        settings = self.settings
        columns = choose_columns(self.dataset, candidate.model, settings.label_column, settings.input_columns)
        processor = load_processor(candidate.folder, columns.kind, self.access.trust_remote_code)
        batches = make_batches(
            self.part,
            columns,
            processor,
            candidate.model,
            batch_size=batch_size,
            max_length=settings.max_length,
            num_workers=self.num_workers,
        )
        extract = FeatureExtractor(candidate.model, settings.layers, settings.pooling)
        accumulators: dict[int, TransferabilityScore] = {}
        start, seconds_score, rows = time.perf_counter(), 0.0, 0
        for inputs, labels in batches:
            features = extract(move(inputs, self.device))
            before = time.perf_counter()
            for layer, vectors in features.items():
                if layer not in accumulators:
                    accumulators[layer] = score_class(settings.score)(first_row=self.first_row)
                vectors, known = labelled_rows(vectors, labels)
                accumulators[layer].update(vectors, known)
            rows += len(known)
            seconds_score += time.perf_counter() - before
        facts |= {"rows": rows, "dimension": vectors.shape[-1], "seconds_score": seconds_score}
        facts["seconds_features"] = time.perf_counter() - start - seconds_score
        return accumulators


def move(inputs: dict[str, Tensor], device: torch.device) -> dict[str, Tensor]:
    return {name: value.to(device) for name, value in inputs.items()}


def labelled_rows(features: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """Features and labels without the rows (or tokens) that carry the ignored label."""
    if features.ndim == 3:
        features, labels = features.flatten(0, 1), labels.flatten()
    if labels.is_floating_point() or labels.ndim != 1:
        return features, labels
    keep = labels != IGNORED_LABEL
    return features[keep.to(features.device)], labels[keep]


def compute_scores(outcomes: Sequence[Outcome]) -> dict[int, Score]:
    """Merge the processes' statistics and compute the score of each layer."""
    merged = outcomes[0].accumulators
    for other in outcomes[1:]:
        for layer, accumulator in other.accumulators.items():
            merged[layer].merge(accumulator)
    return {layer: accumulator.compute() for layer, accumulator in merged.items()}


def explain(error: BaseException, name: str) -> str:
    """One line on why a model has no score."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return "Out of memory even with one row at a time."
    hub = explain_hub_error(error, name)
    lines = (hub or str(error)).strip().splitlines() or [type(error).__name__]
    known = hub or isinstance(error, (ValueError, OSError))
    return lines[0] if known else f"{type(error).__name__}: {lines[0]}"


def release_memory() -> None:
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
