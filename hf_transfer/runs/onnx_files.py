"""A saved model as ONNX files, by transformers' exporter: any number of rows of any length, checked by ONNX Runtime.

A model that writes text is exported in two parts, the reading of a prompt and the step that adds a token; every other
model is one file. `transformers.exporters.ExportedModel.from_pretrained(FOLDER)` runs them, after `import hf_transfer`
where the architecture is of this package.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import json
import logging as python_logging
import sys
from collections.abc import Callable, Iterator, Mapping
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import transformers
from datasets import Audio, Dataset
from PIL import Image
from scipy.io import wavfile
from torch import Tensor
from transformers import PreTrainedModel, default_data_collator
from transformers.utils import logging

from hf_transfer.data.columns import without_labels
from hf_transfer.data.questions import CONTEXT, QUESTION
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments

logger = logging.get_logger(__name__)

EXPORTERS = "transformers.exporters"
NEEDED = ("onnx", "onnxscript", "onnxruntime")
LABELS = {"labels", "start_positions", "end_positions"}
QUESTIONS = "question-answering"
SERIES = "past_values"
WRITE_TEXT = ("text-generation", "text2text-generation")
WORDS = ("one", "word", "after", "another", "in", "a", "row", "that", "means", "little", "to", "anyone")
TOLERANCE = 1e-3
"""Of the mean difference from PyTorch, as a share of the largest output."""


def onnx_tools() -> Any:
    """The module of transformers that exports models.

    Raises:
        ValueError: it, or what it needs, is not installed.
    """
    try:
        for name in NEEDED:
            importlib.import_module(name)
        return importlib.import_module(EXPORTERS)
    except ImportError as error:
        raise ValueError(
            f"an ONNX file needs what is not installed here ({error}): `pip install 'hf-transferability[onnx]'`."
        ) from error


def write_onnx(model: PreTrainedModel, task: str, processor: Any, folder: Path) -> None:
    """Write the ONNX files of a model, its configuration and its processor.

    Args:
        model: with its head.
        task: of the model.
        processor: what reads raw rows for it, or None.
        folder: where to.

    Raises:
        ValueError: rows of this task are not known here, or the exporter fails, or what it wrote computes something
            else than the model.
    """
    model = model.eval()
    if hasattr(model.config, "use_cache"):
        model.config.use_cache = task in WRITE_TEXT  # one graph has no use for a cache
    if processor is not None:
        processor.save_pretrained(folder)
    sample_batch(model, task, processor, 1, 12)  # what cannot be read is told as it is
    try:
        _export(model, task, processor, folder, many=True)
    except Exception as error:
        try:
            _export(model, task, processor, folder, many=False)
        except Exception as last:
            told = str(last.__cause__ or last).strip().splitlines() or [type(last).__name__]
            raise ValueError(f"there is no ONNX form of this {type(model).__name__}: {told[0]}") from error
        logger.warning(
            f"{type(model).__name__} of transformers {transformers.__version__} can be exported for one row at a time "
            "only, of the size that its processor gives."
        )


def inputs_of(folder: Path) -> list[str]:
    """The names of what the files in a folder read, those of the first part."""
    parts = json.loads((folder / "export.json").read_text())["components"]
    return list(next(iter(parts.values()))["metadata"]["kwargs"])


def _export(model: PreTrainedModel, task: str, processor: Any, folder: Path, many: bool) -> None:
    """Write and check files for any number of rows, or for one of a fixed size."""
    tools = onnx_tools()
    rows = sample_batch(model, task, processor, 2 if many else 1, 12)
    with _exporter_talks_to_stderr():
        exporter = tools.OnnxExporter()
        export = exporter.export_for_generation if task in WRITE_TEXT else exporter.export
        export(model, rows, tools.OnnxConfig(dynamic=many)).save_pretrained(folder)
    others = {"count": 3, "size": 7} if many else {"count": 1, "size": 12}
    check_outputs(tools, folder, model, task, sample_batch(model, task, processor, **others, seed=1))


@contextlib.contextmanager
def _exporter_talks_to_stderr() -> Iterator[None]:
    """PyTorch's exporter prints its progress, and warns of every operation of packages that are not installed."""
    own = python_logging.getLogger("torch.onnx")
    level = own.level
    own.setLevel(python_logging.ERROR)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        own.setLevel(level)


def check_outputs(tools: Any, folder: Path, model: PreTrainedModel, task: str, rows: dict[str, Tensor]) -> None:
    """Raises ValueError where the files in a folder compute something else than the model, of other rows."""
    exported, parts = tools.ExportedModel.from_pretrained(folder), {"model": (model, rows)}
    if task in WRITE_TEXT:
        parts = importlib.import_module(f"{EXPORTERS}.utils").decompose_for_generation(model, rows)
    for name, (part, given) in parts.items():
        found, expected = exported.runners[name](**given), part(**given)
        for key, value in expected.items():
            if key in found and torch.is_tensor(value) and value.is_floating_point():
                # of the mean, as queries of a detector that are equally sure may change places
                error, largest = (found[key] - value).abs().mean().item(), value.abs().max().item()
                if not error <= TOLERANCE * max(largest, 0.01):
                    raise ValueError(f"its {key} would differ from the model's by {error:.2g} on average.")


@torch.no_grad()
def sample_batch(
    model: PreTrainedModel, task: str, processor: Any, count: int, size: int, seed: int = 0
) -> dict[str, Tensor]:
    """Inputs of a model, made of random rows of its task.

    Args:
        model: whose `forward` says what it reads.
        task: of the model.
        processor: what reads raw rows for it, or None.
        count: rows.
        size: of a row where it is free: words of a text, steps of a series, tenths of a second of a sound.
        seed: of the rows.

    Raises:
        ValueError: there are no such rows for this task.
    """
    reader = task_named(task)
    kind = task if task == QUESTIONS else reader.reads
    if kind not in ROWS:
        raise ValueError(f"{task} models read {kind.replace('_', ' ')} rows, for which no ONNX file can be made.")
    rows = without_labels(
        reader.arranged(ROWS[kind](model.config, count, size, seed), DataArguments("rows"), "sample")
    )
    ready = reader.prepare(rows, model.config, processor, text_columns=(), max_length=None, keep_labels=False)
    collator = reader.collator(processor, ready, getattr(model.config, "pad_token_id", 0)) or default_data_collator
    accepted = set(inspect.signature(model.forward).parameters) - LABELS
    if not reader.keeps_columns:
        ready = ready.select_columns([name for name in ready.column_names if name in accepted])
    batch: Mapping[str, Any] = collator([ready[place] for place in range(count)])
    return {name: value for name, value in batch.items() if name in accepted and torch.is_tensor(value)}


def _words(count: int, size: int, seed: int) -> list[list[str]]:
    return [[WORDS[place % len(WORDS)] for place in range(row, row + size)] for row in range(seed, seed + count)]


def _texts(config: Any, count: int, size: int, seed: int) -> Dataset:
    return Dataset.from_dict({"text": [" ".join(row) for row in _words(count, size, seed)]})


def _questions(config: Any, count: int, size: int, seed: int) -> Dataset:
    texts = _texts(config, count, size, seed)["text"]
    return Dataset.from_dict({QUESTION: [text[:20] for text in texts], CONTEXT: list(texts)})


def _pictures(config: Any, count: int, size: int, seed: int) -> Dataset:
    """Grey ones where the model reads one channel, otherwise coloured ones."""
    grey = getattr(config, "num_channels", 3) == 1
    numbers = np.random.default_rng(seed).integers(0, 256, (count, 64, 80) if grey else (count, 64, 80, 3))
    return Dataset.from_dict({"image": [Image.fromarray(picture.astype(np.uint8)) for picture in numbers]})


def _sounds(config: Any, count: int, size: int, seed: int) -> Dataset:
    """Noise of a tenth of a second for each unit of `size`, as WAV files of 16,000 samples a second."""
    rate, files = 16000, []
    for noise in np.random.default_rng(seed).normal(0, 1000, (count, size * rate // 10)):
        file = BytesIO()
        wavfile.write(file, rate, noise.astype(np.int16))
        files.append({"path": "noise.wav", "bytes": file.getvalue()})
    return Dataset.from_dict({"audio": files}).cast_column("audio", Audio(decode=False))


def _series(config: Any, count: int, size: int, seed: int) -> Dataset:
    length, channels = getattr(config, "context_length", None) or size, getattr(config, "num_input_channels", 1)
    return Dataset.from_dict({SERIES: np.random.default_rng(seed).normal(size=(count, length, channels)).tolist()})


ROWS: dict[str, Callable[[Any, int, int, int], Dataset]] = {
    "text": _texts,
    "words": lambda config, count, size, seed: Dataset.from_dict({"tokens": _words(count, size, seed)}),
    QUESTIONS: _questions,
    "image": _pictures,
    "audio": _sounds,
    "time_series": _series,
}
"""What a task reads -> raw rows of it, by a model's configuration, how many, of what size where
that is free, and a seed."""
