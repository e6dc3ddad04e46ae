"""The model and processor a run starts with, of the sizes that its data ask for."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any

from datasets import Dataset
from transformers import (
    AutoTokenizer,
    DataCollatorForLanguageModeling,
    DataCollatorWithPadding,
    PreTrainedTokenizerBase,
    default_data_collator,
)

from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.prepare import texts_of
from hf_transfer.data.roll_outs import ActionSpace, make_environment
from hf_transfer.data.time_series import series_shape
from hf_transfer.data.trajectories import DEFAULT_ENVIRONMENT, TrajectoryProcessor, trajectory_shape
from hf_transfer.runs.arguments import DataArguments, ModelArguments
from hf_transfer.runs.data import RunData
from hf_transfer.runs.models import TRAJECTORY_TASK, load_model, load_processor, with_padding


@dataclass(frozen=True)
class TrajectorySettings:
    """The argument `trajectories`.

    Args:
        context_length: steps that the model reads.
        return_scale: divides returns; the largest |return| of the data when left out.
        conditions_on_return: False hides the returns: behaviour cloning.
        environment: gymnasium's name of the one to play in after training; a bundled data set knows its own, and
            without one nothing is played.
        target_return: the return to ask for; the reference's when left out.
        references: mean returns of a random and a reference policy; measured when left out.
        episodes: how many to play.

    Raises:
        ValueError: a value out of range.
    """

    context_length: int = 20
    return_scale: float | None = None
    conditions_on_return: bool = True
    environment: str | None = None
    target_return: float | None = None
    references: list[float] | None = None
    episodes: int = 20

    def __post_init__(self):
        if self.context_length < 1 or self.episodes < 1:
            raise ValueError(
                f"`trajectories`: `context_length` and `episodes` should be at least 1, got {self.context_length} and "
                f"{self.episodes}."
            )
        if self.references is not None and len(self.references) != 2:
            raise ValueError(f"`trajectories`: `references` should be two returns, got {self.references}.")


def trajectory_settings(arguments: DataArguments) -> TrajectorySettings:
    """The settings, with the environment of the bundled data set.

    Raises:
        ValueError: an unknown keyword or a value out of range.
    """
    given = dict(arguments.trajectories or {})
    unknown = sorted(set(given) - set(TrajectorySettings.__dataclass_fields__))
    if unknown:
        accepted = sorted(TrajectorySettings.__dataclass_fields__)
        raise ValueError(f"`trajectories` has no {unknown}, accepted: {accepted}.")
    if arguments.dataset == "trajectories":
        given.setdefault("environment", (arguments.dataset_options or {}).get("environment", DEFAULT_ENVIRONMENT))
    return TrajectorySettings(**given)


def start(
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
    processor = new_processor(model_args, data_args, raw.train)
    if model_args.architecture is not None:
        sizes = sizes_of(model_args.architecture, data_args, raw, processor)
        model_args = replace(model_args, architecture={**sizes, **model_args.architecture})
    model = load_model(model_args, class_names, outputs=outputs, problem_type=problem_type)
    if isinstance(processor, PreTrainedTokenizerBase):
        processor = with_padding(processor, model.config)
    return model, load_processor(model_args, model.config) if processor is None else processor


def new_processor(model_args: ModelArguments, data_args: DataArguments, rows: Dataset) -> Any:
    """The tokenizer that is asked for, trained or loaded, or the scales of new trajectories; None for neither."""
    if model_args.task == TRAJECTORY_TASK:
        settings = trajectory_settings(data_args)
        if settings.environment is not None:
            make_environment(settings.environment)
        if model_args.model is not None:
            return TrajectoryProcessor.from_pretrained(model_args.model)
        return TrajectoryProcessor.fit(
            rows, settings.context_length, settings.return_scale, settings.conditions_on_return
        )
    if isinstance(model_args.tokenizer, Mapping):
        return train_bpe(texts_of(rows, data_args.text_columns or ()), **model_args.tokenizer)
    if model_args.tokenizer is None:
        return None
    try:
        return AutoTokenizer.from_pretrained(model_args.tokenizer, trust_remote_code=model_args.trust_remote_code)
    except (OSError, ValueError, KeyError) as error:
        raise ValueError(f"cannot load the tokenizer `{model_args.tokenizer}`: {error}") from error


def sizes_of(
    architecture: Mapping[str, Any], data_args: DataArguments, raw: RunData, processor: Any
) -> dict[str, Any]:
    """The fields of a new model's configuration that follow from data and tokenizer.

    Channels of time series, and their longest length where the head reads all places in a row; sizes and length of
    trajectories; the vocabulary and special tokens.
    """
    every = [rows for rows in (raw.train, raw.target, raw.test) if rows is not None]
    if isinstance(processor, PreTrainedTokenizerBase):
        special = ("pad_token_id", "bos_token_id", "eos_token_id")
        return {"vocab_size": len(processor), **{name: getattr(processor, name) for name in special}}
    if isinstance(processor, TrajectoryProcessor):
        state_dim, act_dim, _ = trajectory_shape(raw.train)
        longest = max(trajectory_shape(rows)[2] for rows in every)
        environment = trajectory_settings(data_args).environment
        made = None if environment is None else make_environment(environment)
        limit = 0 if made is None else made.spec.max_episode_steps or 0
        is_discrete = made is not None and ActionSpace(made.action_space).is_discrete
        sizes = {"state_dim": state_dim, "act_dim": act_dim, "max_episode_length": max(longest, limit)}
        return {**sizes, "discrete_actions": is_discrete}
    if "past_values" in raw.train.column_names and architecture.get("model_type") == "flowformer":
        channels, longest = series_shape(raw.train)[0], max(series_shape(rows)[1] for rows in every)
        is_flat = architecture.get("pooling") == "flatten"
        return {"num_input_channels": channels, **({"max_position_embeddings": longest} if is_flat else {})}
    return {}


def collator_for(task: str, processor: Any, rows: Dataset, pad_token_id: int | None = 0) -> Callable | None:
    """What makes a batch of prepared rows; None where the Trainer's own choice is right.

    Args:
        task: `fill-mask` hides tokens, `text-generation` makes each token its own label.
        processor: the tokenizer, if any.
        rows: prepared rows.
        pad_token_id: behind tokens that no tokenizer pads.

    Raises:
        ValueError: the tokenizer has no mask token, which `fill-mask` needs.
    """
    if "past_values" in rows.column_names:
        return PaddingCollator("past_values")
    if task == "text-generation" and "labels" in rows.column_names:
        return default_data_collator
    if task in ("fill-mask", "text-generation"):
        return DataCollatorForLanguageModeling(processor, mlm=task == "fill-mask")
    if isinstance(processor, PreTrainedTokenizerBase):
        return DataCollatorWithPadding(processor)
    return PaddingCollator("input_ids", pad_token_id or 0) if "input_ids" in rows.column_names else None
