"""The model and processor a run starts with, of the sizes that its data ask for."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from transformers import PreTrainedTokenizerBase

from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import RunData
from hf_transfer.runs.models import load_model
from hf_transfer.tasks import task_named
from hf_transfer.tasks.text import with_padding


def set_up(
    model_args: ModelArguments,
    data_args: DataArguments,
    raw: RunData,
    class_names: list[str] | None = None,
    outputs: int | None = None,
    problem_type: str | None = None,
) -> tuple[Any, Any]:
    """The model and what reads raw rows for it: a tokenizer, an image or a trajectory processor, or None.

    An `architecture` gets from the data the sizes that it leaves out.

    Args:
        model_args: where to start from.
        data_args: what the data are.
        raw: they themselves.
        class_names: as `load_model` takes them.
        outputs: likewise.
        problem_type: likewise.

    Raises:
        ValueError: no such model, or a tokenizer that cannot be had.
    """
    task = task_named(model_args.task)
    processor = task.new_processor(model_args, data_args, raw.train if task.reads == "text" else raw.known)
    if model_args.architecture is not None:
        every = [rows for rows in (raw.known, raw.known_target, raw.test) if rows is not None]
        sizes = task.sizes(model_args.architecture, data_args, every, processor)
        model_args = replace(model_args, architecture=joined(sizes, model_args.architecture))
    model = load_model(model_args, class_names, outputs=outputs, problem_type=problem_type)
    if isinstance(processor, PreTrainedTokenizerBase):
        processor = with_padding(processor, model.config)
    return model, task.load_processor(model_args, model.config) if processor is None else processor


def joined(sizes: Mapping[str, Any], given: Mapping[str, Any]) -> dict[str, Any]:
    """Fields of a configuration; what the user gives counts, also inside the configuration of a part."""
    parts = {
        name: joined(sizes[name], part) for name, part in given.items() if both_hold_fields(sizes.get(name), part)
    }
    return {**sizes, **given, **parts}


def both_hold_fields(*values: Any) -> bool:
    return all(isinstance(value, Mapping) for value in values)
