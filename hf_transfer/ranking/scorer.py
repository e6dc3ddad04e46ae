"""Score one model after another on the same rows, or on the part of them that this process reads."""

from __future__ import annotations

import gc
import time
import weakref
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils.memory import should_reduce_batch_size
from datasets import Dataset
from torch import Tensor, nn

from hf_transfer.core.task_loss import known_rows
from hf_transfer.hub import explain_hub_error
from hf_transfer.modeling.inputs import choose_columns, longest_first, make_batches
from hf_transfer.modeling.loading import first_line, load_model, tower_of
from hf_transfer.modeling.padding import plan_batches, planned
from hf_transfer.modeling.processors import load_processor
from hf_transfer.ranking.accumulators import Accumulators, compute_scores
from hf_transfer.ranking.baseline import architecture_of, baseline_name, random_model
from hf_transfer.ranking.candidates import Access, Fetched, fetch, remove
from hf_transfer.ranking.features import FeatureExtractor, HeadExtractor
from hf_transfer.ranking.ranking import RankingRow
from hf_transfer.ranking.settings import RankSettings
from hf_transfer.ranking.sharing import SharedModels, SharedRows


@dataclass
class Outcome:
    """What one process found out about one model."""

    accumulators: Accumulators | None
    reason: str | None
    facts: dict[str, Any]


class ModelScorer:
    """Turns fetched candidates into rows of a ranking.

    Args:
        dataset: the rows to rank on, the same on every process.
        settings, access: see `rank_models`.
        batch_size: rows at once, halved when memory runs out.
        sharing: what several processes share, the rows or the models.
        device: where models run; the accelerator of this process by default.
        num_workers: processes that read the data.
    """

    def __init__(
        self,
        dataset: Dataset,
        settings: RankSettings,
        access: Access,
        batch_size: int,
        sharing: SharedRows | SharedModels,
        device: str | torch.device | None = None,
        num_workers: int = 0,
    ):
        self.state, self.sharing = PartialState(), sharing
        share = -(-len(dataset) // sharing.num_parts)
        self.first_row = min(share * sharing.part, len(dataset))
        self.part = dataset.select(range(self.first_row, min(self.first_row + share, len(dataset))))
        self.dataset, self.settings, self.access = dataset, settings, access
        self.batch_size, self.num_workers = batch_size, num_workers
        self.device = torch.device(device) if device is not None else self.state.device
        self.architectures: set[str] = set()
        self.removable: list[Path | None] = []
        # A base model may serve several adapters, and be a candidate itself: it stays until the end.
        self.removable_bases: list[Path | None] = []

    def rows(self, name: str, fetched: Future[Fetched], with_baseline: bool = False) -> list[RankingRow]:
        """The row of one model, and with `with_baseline` that of random weights, if its architecture has none yet;
        whatever goes wrong with it, on any process, becomes the row's reason.
        """
        self.removable = []
        rows = [self.row_of(name, self.sharing.outcomes(self.try_model(name, fetched)))]
        if with_baseline and rows[0].architecture not in (None, *self.architectures):
            self.architectures.add(rows[0].architecture)
            outcomes = self.sharing.outcomes(self.try_model(name, fetched, is_random=True))
            rows.append(replace(self.row_of(baseline_name(name), outcomes), is_baseline=True))
        # Only now has every process loaded its copy.
        self.free(self.removable)
        return rows

    def row_of(self, name: str, outcomes: list[Outcome]) -> RankingRow:
        """A row of what the processes that share the rows found out."""
        facts = shared_facts(outcomes)
        reason = next((other.reason for other in outcomes if other.reason), None)
        if reason is None:
            start = time.perf_counter()
            try:
                scores, failed = compute_scores([outcome.accumulators for outcome in outcomes])
            except Exception as error:
                reason = explain(error, name)
        if reason is not None:
            return RankingRow(model=name, reason=reason, **facts)
        facts["seconds_score"] += time.perf_counter() - start
        notes = [f"{score} was not computed: {why}" for score, why in failed.items()]
        seen, kept = outcomes[0].accumulators.layers_seen, len(scores[self.settings.scores[0]])
        if kept < seen and isinstance(self.settings.layers, str):
            notes.append(f"{kept} of {seen} layers were scored, for memory's sake.")
        if self.settings.layers == "best":
            best = {score: max(layers, key=lambda layer: layers[layer].value) for score, layers in scores.items()}
            scores = {score: {best[score]: layers[best[score]]} for score, layers in scores.items()}
        return RankingRow.of_scores(name, scores, notes=tuple(notes), **facts)

    def free(self, folders: Sequence[Path | None]) -> None:
        """Remove models from the cache, once a machine."""
        if self.state.is_local_main_process:
            for folder in folders:
                remove(folder)

    def try_model(self, name: str, fetched: Future[Fetched], is_random: bool = False) -> Outcome:
        """Run this process's part of the data through one model, or through its architecture with random weights."""
        facts: dict[str, Any] = {}
        model = None
        try:
            candidate = fetched.result()
            if candidate.folder is None:
                # This process knew the result, another did not.
                candidate = self.fetch_now(name)
            self.removable.append(candidate.removable)
            start = time.perf_counter()
            model = self.load(candidate.folder, is_random)
            facts["architecture"] = architecture_of(model.config)
            facts |= {"revision": candidate.revision, "seconds_load": time.perf_counter() - start}
            facts["parameters"] = sum(parameter.numel() for parameter in model.parameters())
            self.check_size(facts["parameters"])
            accumulators = self.accumulate(model, candidate.folder, facts)
            if self.sharing.num_parts > 1:
                accumulators.to_cpu()
            return Outcome(accumulators, None, facts)
        except Exception as error:
            return Outcome(None, explain(error, name), facts)
        finally:
            alive = None if model is None else weakref.ref(model)
            del model
            release_memory(alive is not None and alive() is not None)

    def fetch_now(self, name: str) -> Fetched:
        """Fetch a model without looking for a finished row."""
        return fetch(name, self.access, lambda name, revision: False)

    def load(self, folder: Path, is_random: bool = False) -> nn.Module:
        """The model of a fetched folder, or of random weights, on the device; an adapter's base is fetched too."""

        def fetch_base(base: str) -> Path:
            fetched = self.fetch_now(base)
            self.removable_bases.append(fetched.removable)
            return fetched.folder

        options = {
            "with_head": self.settings.reads_head,
            "dtype": self.settings.dtype,
            "trust_remote_code": self.access.trust_remote_code,
        }
        if is_random:
            model = random_model(folder, fetch_base, seed=self.settings.seed, **options)
        else:
            model = load_model(folder, fetch_base, allow_pickle=self.access.allow_pickle, **options)
        return model.to(self.device)

    def check_size(self, parameters: int) -> None:
        most = self.access.max_params
        if most is not None and parameters > most:
            raise ValueError(f"It has {parameters:,} parameters, more than `max_params` ({most:,}).")

    def accumulate(self, model: nn.Module, folder: Path, facts: dict[str, Any]) -> Accumulators:
        """One pass over the data; out of memory halves the batch and starts the pass again."""
        batch_size = self.batch_size
        while True:
            try:
                facts["batch_size"] = batch_size
                return self.one_pass(model, folder, batch_size, facts)
            except (RuntimeError, MemoryError) as error:
                if batch_size == 1 or not is_out_of_memory(error):
                    raise
            batch_size //= 2
            release_memory()

    def one_pass(self, model: nn.Module, folder: Path, batch_size: int, facts: dict[str, Any]) -> Accumulators:
        settings = self.settings
        columns = choose_columns(self.dataset, model, settings.label_column, settings.input_columns)
        model = tower_of(model, set(columns.inputs), columns.kind)
        order = longest_first(self.part, columns)
        batches = make_batches(
            self.part,
            columns,
            load_processor(folder, columns.kind, self.access.trust_remote_code),
            model,
            batch_size=batch_size,
            max_length=settings.max_length,
            order=order,
            num_workers=self.num_workers,
        )
        if settings.reads_head:
            extract = HeadExtractor(model)
        else:
            extract = FeatureExtractor(model, settings.layers, "none" if columns.is_per_token else settings.pooling)
        accumulators = Accumulators(settings, len(self.part))
        start, seconds_score, rows = time.perf_counter(), 0.0, 0
        plan = plan_batches(batches, order, batch_size, lambda inputs: extracted(extract, inputs, model))
        for (inputs, labels), indices in zip(planned(batches, plan), plan, strict=True):
            features = extracted(extract, inputs, model)
            before = time.perf_counter()
            for layer, vectors in accumulators.choose(features).items():
                vectors, known, theirs = labelled_rows(vectors, labels, indices, columns.is_per_token)
                accumulators.update(layer, vectors, known, self.first_row + theirs)
            rows += len(known)
            seconds_score += time.perf_counter() - before
        facts |= {"rows": rows, "seconds_score": seconds_score}
        facts["seconds_features"] = time.perf_counter() - start - seconds_score
        return accumulators


def extracted(extract: Callable[[dict[str, Tensor]], Any], inputs: dict[str, Tensor], model: nn.Module) -> Any:
    """What the extractor gives for a batch.

    Raises:
        ValueError: the model's forward cannot be run on these inputs alone, as that of a detector or a translator.
    """
    try:
        return extract(on_device(inputs, model))
    except (TypeError, AttributeError, IndexError, RuntimeError) as error:
        if is_out_of_memory(error):
            raise
        raise ValueError(
            f"{type(model).__name__} cannot be run on {' and '.join(sorted(inputs))} alone, which is how features are "
            f"read ({type(error).__name__}: {first_line(error)})"
        ) from error


def on_device(inputs: dict[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """Inputs where the model is; floating ones in its precision."""
    weight = next(model.parameters())
    return {
        name: value.to(weight.device, weight.dtype) if value.is_floating_point() else value.to(weight.device)
        for name, value in inputs.items()
    }


def labelled_rows(
    features: Tensor, labels: Tensor, indices: Tensor, is_per_token: bool
) -> tuple[Tensor, Tensor, Tensor]:
    """Features, labels and places [B] without the rows (or tokens) that carry the ignored label."""
    if is_per_token:
        length = min(features.shape[1], labels.shape[1])
        features, labels = features[:, :length].flatten(0, 1), labels[:, :length].flatten()
        indices = indices.repeat_interleave(length)
    keep = known_rows(labels)
    return features[keep.to(features.device)], labels[keep], indices[keep]


def shared_facts(outcomes: Sequence[Outcome]) -> dict[str, Any]:
    """Facts of all processes as one: rows add up, the smallest batch and the longest time count."""
    facts: dict[str, Any] = {}
    for outcome in outcomes:
        for name, value in outcome.facts.items():
            if name not in facts:
                facts[name] = value
            elif name == "rows":
                facts[name] += value
            elif name == "batch_size":
                facts[name] = min(facts[name], value)
            elif name.startswith("seconds"):
                facts[name] = max(facts[name], value)
    return facts


def is_out_of_memory(error: BaseException) -> bool:
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or should_reduce_batch_size(error)


def explain(error: BaseException, name: str) -> str:
    """One line on why a model has no score."""
    if is_out_of_memory(error):
        return "Out of memory even with one row at a time."
    hub = explain_hub_error(error, name)
    if hub:
        return hub
    is_plain = isinstance(error, (ValueError, OSError))
    return first_line(error) if is_plain else f"{type(error).__name__}: {first_line(error)}"


def release_memory(has_cycles: bool = True) -> None:
    """Give memory back to the device; looking for cycles of dead objects takes long and is asked for."""
    if has_cycles:
        gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()
