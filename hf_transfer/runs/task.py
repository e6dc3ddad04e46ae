"""Which task a run has when nobody says: what the model's configuration reads; where that leaves a doubt, the rows.

A BERT folder reads text and a ViT images, whatever the rows are; rows that the model cannot read are refused later.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Audio, Dataset, Image, Value
from peft import PeftConfig
from transformers import (
    AutoConfig,
    PreTrainedConfig,
)
from transformers.utils import logging

from hf_transfer.data.bundled import load
from hf_transfer.data.checks import LABEL_COLUMNS
from hf_transfer.data.class_names import WORDS
from hf_transfer.data.prepared_streams import PreparedStream
from hf_transfer.data.stream_files import load_stream
from hf_transfer.data.tagged_words import holds_tagged_words
from hf_transfer.data.text_columns import check_texts_as
from hf_transfer.hub import adapter_class_names, adapter_outputs
from hf_transfer.modeling.adapters import TASK_CLASSES, is_adapter
from hf_transfer.modeling.named_backbones import BACKBONE, can_be_backbone
from hf_transfer.modeling.two_towers import TOWERS
from hf_transfer.models.revisions import pinned
from hf_transfer.runs.arguments import DataArguments, Experiment, ModelArguments
from hf_transfer.runs.models import base_revision, new_config
from hf_transfer.runs.stream_data import check_streaming
from hf_transfer.tasks import MAIN_TASKS, TASKS, Task, claimed_by
from hf_transfer.tasks.prompted_image_classification import PromptedImageClassification
from hf_transfer.tasks.text_classification import TEXT_COLUMNS
from hf_transfer.tasks.time_series_forecasting import TimeSeriesForecasting
from hf_transfer.tasks.zero_shot_image_classification import ZeroShotImageClassification

logger = logging.get_logger(__name__)


def with_task(experiment: Experiment, pretraining: bool = False) -> Experiment:
    """The experiment with the task that it leaves out; where it names one, as it is.

    Args:
        experiment: of the run.
        pretraining: rows without labels ask for masked images, masked or causal text.

    Raises:
        ValueError: model and data leave the task open.
    """
    model_args, data_args = experiment.model, experiment.data
    check_streaming(experiment)
    if model_args.task is not None:
        adapted_as = None if pretraining or model_args.task not in TASKS else TASKS[model_args.task].adapted_as
        return experiment if adapted_as is None else experiment._replace(model=replace(model_args, task=adapted_as))

    def rows() -> Dataset:
        own = {"config": data_args.dataset_config, "options": data_args.dataset_options}
        if data_args.streaming:
            return PreparedStream(load_stream(data_args.dataset, data_args.split, **own), "training").first
        return load(data_args.dataset, data_args.split, **own)

    task = find_task(model_args, rows, pretraining, data_args)
    logger.info(f"`task` is {task}, as model and data say.")
    return experiment._replace(model=replace(model_args, task=task))


def with_new_head(model_args: ModelArguments) -> ModelArguments:
    """The model as the backbone of a new head, where its kind has none for the task and the task has one for any.

    Raises:
        ValueError: the task has no such head, and an `architecture` would have to say which; or an adapter is asked
            for, which would be saved without the head's other weights.
    """
    task, named = TASKS.get(model_args.task or ""), model_args.model
    if task is None or not task.labels_parts_of_images or named is None or is_adapter(Path(named)):
        return model_args
    config = configuration_of(model_args)
    if task.can_load(config) or not can_be_backbone(config):
        return model_args
    if task.head_on_backbone is None:
        raise ValueError(
            f"`{named}` has no head for {task.name}: take a model that has, or name a new head whose backbone it is, "
            f"architecture: {{model_type: rt_detr, backbone_config: {named}}}."
        )
    if model_args.peft is not None:
        raise ValueError(
            f"`peft`: `{model_args.model}` has no head for {task.name}, and an adapter is saved without the new one "
            "that it would get: adapt it without `peft` first, and then what that saves."
        )
    logger.warning(
        f"{model_args.model} has no head for {task.name}: it is the backbone of a new {task.head_on_backbone}."
    )
    backbone = pinned(model_args.model, model_args.revision)
    architecture = {"model_type": task.head_on_backbone, BACKBONE: backbone}
    return replace(model_args, model=None, revision=None, architecture=architecture)


def find_task(
    model_args: ModelArguments,
    rows: Callable[[], Dataset],
    pretraining: bool = False,
    data_args: DataArguments | None = None,
) -> str:
    """The task, a key of `TASKS`. Arguments and errors as `with_task`; `rows` is asked in doubt only."""
    config = configuration_of(model_args)
    if data_args is not None and data_args.forecasting is not None:
        return TimeSeriesForecasting.name
    if pretraining and has_two_towers(config) and are_pairs(rows()):
        return ZeroShotImageClassification.name
    kinds = set(MAIN_TASKS) if config is None else kinds_of(config)
    if not pretraining and not kinds and has_two_towers(config):
        return PromptedImageClassification.name
    if data_args is not None and (data_args.trajectories or data_args.dataset == "trajectories"):
        kinds &= {"trajectory"}
    data = rows() if len(kinds) > 1 or (pretraining and kinds) else None
    if len(kinds) > 1:
        kinds = kinds & kinds_of_rows(data) or kinds - {"words"}  # a model of text reads sentences, unless told
    if kinds <= {"image"} and not pretraining and (parts := task_of_parts(config, rows)):
        return parts
    if kinds == {"text"} and not pretraining and data is not None and (asked := task_of_questions(config, data)):
        return asked
    if len(kinds) != 1:
        if config is None:
            raise ValueError(unreadable(str(model_args.model)))
        raise ValueError(
            f"`task` cannot be told from {model_args.model or model_args.architecture} and the data: give one of "
            f"{sorted(TASKS)}."
        )
    (kind,) = kinds
    if not pretraining or kind in ("trajectory", "time_series") or set(LABEL_COLUMNS) & set(data.column_names):
        return MAIN_TASKS[kind].name
    if kind == "image":
        return "masked-image-modeling"
    if (task := language_task(config)) is None:
        raise ValueError(
            "`task` should say how to pre-train on text: fill-mask, text-generation or text2text-generation."
        )
    return task


def unreadable(name: str) -> str:
    """What to do about a model whose configuration cannot be read."""
    if Path(name).is_dir():
        return f"the folder `{name}` holds no model: it has no config.json that transformers knows."
    return (
        f"there is no folder `{name}` here, and the Hub gives no configuration of such a model that transformers "
        "knows: check the name, the connection and your access. With `task` given, loading tells the reason."
    )


def task_of_parts(config: PreTrainedConfig | None, rows: Callable[[], Dataset]) -> str | None:
    """The task of pictures whose labels are masks, where a model of this configuration can have it."""
    able = [task for task in TASKS.values() if task.labels_parts_of_images and task.can_load(config)]
    return claimed_by(rows(), able) if able else None


def task_of_questions(config: PreTrainedConfig | None, rows: Dataset) -> str | None:
    """The task of texts whose labels are parts of them, where a model of this configuration can have it."""
    able = [task for task in TASKS.values() if task.reads == "text" and task.can_load(config)]
    return claimed_by(rows, able)


def find_evaluation_task(model_args: ModelArguments, rows: Callable[[], Dataset]) -> str:
    """The task of a saved model: by its head, where that tells it; of two towers without a head by these; of others as
    `find_task`."""
    config = configuration_of(model_args)
    remembering = next((name for name, task in TASKS.items() if task.remembered(config)), None)
    if remembering is not None:
        return remembering
    adapted = adapted_class(model_args)
    if adapted is not None and (task := head_task(config, adapted)) is not None:
        return task  # the configuration is the base model's, and names another class
    saved_as = adapted or (getattr(config, "architectures", None) or [""])[0]
    if has_two_towers(config) and saved_as.endswith("Model"):
        is_adapted = is_adapter(Path(model_args.model)) and adapter_class_names(model_args.model) is not None
        return PromptedImageClassification.name if is_adapted else ZeroShotImageClassification.name
    if config is not None and language_task(config) == "text-generation":
        return "text-generation"
    return head_task(config, saved_as) or find_task(model_args, rows)


def told_or_remembered(
    model_args: ModelArguments, task: Task, told: Mapping[str, Mapping[str, Any] | None]
) -> dict[str, Any]:
    """Arguments of the data that one task reads, as the user gives them or as the saved model remembers them.

    Args:
        model_args: of the saved model.
        task: of the rows.
        told: argument -> its value, None where it is not given; of a mapping only keys that are to differ.

    Raises:
        ValueError: one is given that the task does not read.
    """
    given = {name: value for name, value in told.items() if value is not None}
    for name, value in given.items():
        if name not in task.own_arguments:
            raise ValueError(f"`{name}` = {value!r} would be ignored: this task is {task.name}. Leave it out.")
    kept = task.remembered(configuration_of(model_args))
    return {**kept, **{name: {**kept.get(name, {}), **value} for name, value in given.items()}}


def remembered_texts(model: str, rows: Dataset, labels: Sequence[str] = ()) -> tuple[str, ...]:
    """The columns of text that a saved model was trained on, where the rows have them.

    Args:
        model: folder or Hub id.
        rows: to read.
        labels: their columns of labels, where these have no usual names.

    Raises:
        ValueError: as `check_texts_as`.
    """
    names = tuple(getattr(configuration_of(ModelArguments(model=model)), TEXT_COLUMNS, None) or ())
    if "input_ids" in rows.column_names:
        return ()
    check_texts_as(rows, names, "given", labels)
    return names if set(names) <= set(rows.column_names) else ()


def head_task(config: PreTrainedConfig | None, saved_as: str) -> str | None:
    """The task with labels whose head a model was saved with, where the name of its class tells it."""
    tasks = [task for task in TASKS.values() if task.reads_labels and saved_as.endswith(task.saved_as)]
    # the heads of Wav2Vec2 and BERT have the same name
    known = [task.name for task in tasks if type(config) in getattr(task.model_class(), "_model_mapping", ())]
    return known[0] if len(known) == 1 else None


def adapted_class(model_args: ModelArguments) -> str | None:
    """The class of the model that an adapter was trained on, where `model` is one that says it or its task."""
    if model_args.model is None or not is_adapter(Path(model_args.model)):
        return None
    config = PeftConfig.from_pretrained(model_args.model)
    return (config.auto_mapping or {}).get("base_model_class") or TASK_CLASSES.get(config.task_type)


def configuration_of(model_args: ModelArguments) -> PreTrainedConfig | None:
    """The configuration that a run starts from; None where it cannot be read, which loading the model will tell."""
    if model_args.architecture is not None:
        return new_config(dict(model_args.architecture))
    try:
        name, options = model_args.model, model_args.stored
        if not is_adapter(Path(name)):
            return AutoConfig.from_pretrained(name, **options)
        options["revision"] = base_revision(Path(name))
        config = AutoConfig.from_pretrained(PeftConfig.from_pretrained(name).base_model_name_or_path, **options)
        config.update(adapter_outputs(name))
        return config
    except (OSError, ValueError, KeyError, TypeError):
        return None


def kinds_of(config: PreTrainedConfig) -> set[str]:
    """What models of this configuration can read and classify: keys of `MAIN_TASKS`."""
    if hasattr(config, "modality"):
        return {config.modality} & set(MAIN_TASKS)
    own = getattr(config, "auto_map", None) or {}
    classes = {kind: task.model_class() for kind, task in MAIN_TASKS.items()}
    return {
        kind
        for kind, one in classes.items()
        if type(config) in getattr(one, "_model_mapping", ()) or one.__name__ in own
    }


def kinds_of_rows(rows: Dataset) -> set[str]:
    """What the rows hold: at most one of the keys of `MAIN_TASKS`."""
    if holds_tagged_words(rows):
        return {"words"}
    for kind, task in MAIN_TASKS.items():
        if task.input_column in rows.column_names:
            return {kind}
    features = [feature for name, feature in rows.features.items() if name not in LABEL_COLUMNS]
    if any(isinstance(feature, Image) for feature in features):
        return {"image"}
    if any(isinstance(feature, Audio) for feature in features):
        return {"audio"}
    is_text = any(isinstance(feature, Value) and feature.dtype in WORDS for feature in features)
    return {"text"} if is_text else set()


def has_two_towers(config: PreTrainedConfig | None) -> bool:
    """Whether models of this configuration embed images and texts."""
    return config is not None and all(part in config.sub_configs for part in TOWERS)


def are_pairs(rows: Dataset) -> bool:
    """Whether rows hold images and texts that are no labels."""
    features = [feature for name, feature in rows.features.items() if name not in LABEL_COLUMNS]
    is_image = any(isinstance(feature, Image) for feature in features)
    return is_image and any(getattr(feature, "dtype", None) in WORDS for feature in features)


def language_task(config: PreTrainedConfig | None) -> str | None:
    """How the saved language model was trained; None for other heads."""
    names = getattr(config, "architectures", None) or []
    tasks = [task for task in TASKS.values() if not task.reads_labels]
    return next((task.name for task in tasks for name in names if name.endswith(task.saved_as)), None)
