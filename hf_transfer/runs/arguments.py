"""The arguments of a run, from one YAML file and overrides on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from transformers import HfArgumentParser, TrainingArguments

from hf_transfer.models.short_names import model_folder
from hf_transfer.runs.values import check_types, read_value
from hf_transfer.training.trainer import TransferConfig


@dataclass
class ModelArguments:
    """Which model to start from.

    Raises:
        ValueError: neither `model` nor `architecture` is given, or both are; or an adapter on random weights.
    """

    model: str | None = field(
        default=None,
        metadata={"help": "Folder, bare name, Hub id or packaged name (all-minilm) of the model to start from."},
    )
    architecture: dict | None = field(
        default=None,
        metadata={
            "help": "Start from random weights of this configuration: "
            '{"model_type": "flowformer", "modality": "image"}; '
            "`attn_implementation: sdpa` in it makes the softmax twin."
        },
    )
    task: str | None = field(
        default=None,
        metadata={
            "help": "Kind of head: a key of hf_transfer.runs.models.AUTO_CLASSES; left out, the one that model and "
            "data say."
        },
    )
    peft: dict | None = field(
        default=None,
        metadata={"help": 'PEFT adapter: {"peft_type": "LORA", "r": 8, "target_modules": "all-linear"}.'},
    )
    converters: dict | None = field(
        default=None,
        metadata={"help": 'Changes of the model by name with their keywords: {"stoch_norm": {"p": 0.5}}.'},
    )
    tokenizer: dict | str | None = field(
        default=None,
        metadata={
            "help": "In place of the model's: a folder or Hub id, or {vocab_size: 4000} to train a byte-level BPE on "
            "the training texts."
        },
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "Run code that comes with the model."})

    def __post_init__(self):
        if (self.model is None) == (self.architecture is None):
            raise ValueError(
                "give either `model` (start from its weights) or `architecture` (start from random weights)."
            )
        if self.model is not None:
            self.model = model_folder(self.model)
        if self.peft is not None and self.architecture is not None:
            raise ValueError(
                "`peft` saves an adapter alone, and the random weights of `architecture` under it would be lost: "
                "start from a saved `model`."
            )
        if isinstance(self.tokenizer, dict) and (self.model is not None or set(self.tokenizer) != {"vocab_size"}):
            raise ValueError(
                "`tokenizer` as a mapping trains a new one, {vocab_size: 4000}, for the random weights of an "
                f"`architecture`; got {self.tokenizer}."
            )


@dataclass
class DataArguments:
    """Which data to read: bundled names, Hub ids, folders or files, as `hf_transfer.data.bundled.load` takes them.

    Raises:
        ValueError: a number of rows or tokens is too small.
    """

    dataset: str = field(metadata={"help": "Training data; the labelled source in domain adaptation."})
    split: str | None = field(default=None, metadata={"help": "Its split; train when it has one."})
    dataset_config: str | None = field(
        default=None, metadata={"help": "Its configuration, for a Hub dataset with several: wikitext-103-raw-v1."}
    )
    dataset_options: dict | None = field(
        default=None, metadata={"help": "Keywords of a bundled dataset: {min_length: 500, max_length: 1000}."}
    )
    target_dataset: str | None = field(
        default=None,
        metadata={
            "help": "Unlabelled target: makes the run a domain adaptation. Its labels are not read. Every batch is "
            "half source and half target: a batch size of 16 is 8 + 8."
        },
    )
    target_split: str | None = field(default=None, metadata={"help": "Its split."})
    target_options: dict | None = field(
        default=None, metadata={"help": "Its keywords, where it is bundled: {known_digits: 8}."}
    )
    test_dataset: str | None = field(default=None, metadata={"help": "Labelled rows to evaluate on."})
    test_split: str | None = field(
        default=None, metadata={"help": "Its split, test when it has one; given alone, a split of `dataset`."}
    )
    test_rows: int | None = field(
        default=None,
        metadata={"help": "Without a test set: hold out this many rows of the target, or else of the dataset."},
    )
    labels_per_class: int | None = field(default=None, metadata={"help": "Train on only so many rows of each class."})
    label_column: str | None = field(
        default=None, metadata={"help": "Which column holds the labels, where it is not label, labels or label_ids."}
    )
    problem_type: str | None = field(
        default=None,
        metadata={
            "help": "What the labels are, where whole numbers leave a doubt: regression, single_label_classification "
            "or multi_label_classification."
        },
    )
    max_samples: int | None = field(
        default=None, metadata={"help": "Train on at most so many random rows of the dataset, and of the target."}
    )
    text_columns: list[str] | None = field(default=None, metadata={"help": "Which one or two columns hold the text."})
    max_length: int | None = field(default=None, metadata={"help": "Cut text after so many tokens."})
    block_size: int | None = field(
        default=None,
        metadata={"help": "For text-generation: join the texts and cut them into blocks of so many tokens."},
    )
    trajectories: dict | None = field(
        default=None,
        metadata={
            "help": "For offline-reinforcement-learning: context_length, return_scale, conditions_on_return, "
            "environment, target_return, references (returns of a random and a reference policy), episodes."
        },
    )

    def __post_init__(self):
        for name, least in (("test_rows", 0), ("labels_per_class", 1), ("max_length", 1), ("max_samples", 2)):
            value = getattr(self, name)
            if value is not None and value < least:
                raise ValueError(f"`{name}` should be at least {least}, got {value}.")


@dataclass
class RunArguments:
    """How a run treats its output folder and the Hub."""

    resume: bool = field(default=False, metadata={"help": "Go on from the newest complete checkpoint of output_dir."})
    overwrite: bool = field(default=False, metadata={"help": "Replace what is in output_dir."})
    from_ranking: str | None = field(
        default=None,
        metadata={"help": "Folder of the saved ranking that the model was chosen by, which the card then shows."},
    )
    student_rounds: int = field(
        default=0,
        metadata={
            "help": "Noisy student: first train without the objectives that have a teacher, then so many students, "
            "each anew from the start and taught by the model before."
        },
    )
    student: dict | None = field(
        default=None,
        metadata={"help": "With student_rounds: fields of `architecture` in which students differ from the teacher."},
    )

    guard: bool = field(
        default=False,
        metadata={
            "help": "Domain adaptation: train source only first, and keep it where the validator prefers it to the "
            "adapted model."
        },
    )
    source_only: str | None = field(
        default=None, metadata={"help": "As guard, with the folder of a source-only model that is trained already."}
    )
    keep_adapted: bool = field(
        default=False, metadata={"help": "With guard or source_only: tell the scores and keep the adapted model."}
    )
    diagnostics: bool = field(
        default=True,
        metadata={"help": "Domain adaptation: draw losses, both domains in two dimensions and confusion matrices."},
    )
    embedding: str = field(default="pca", metadata={"help": "The two dimensions of the diagnostics: pca or tsne."})

    def __post_init__(self):
        if self.guard and self.source_only is not None:
            raise ValueError("`guard` trains source only and `source_only` names the folder of one: give one of them.")
        if self.keep_adapted and not (self.guard or self.source_only is not None):
            raise ValueError("`keep_adapted` overrules `guard` or `source_only`: give one of them too.")
        if self.student_rounds and (self.guard or self.source_only is not None):
            raise ValueError("`guard` and `source_only` compare one training, not the rounds of `student_rounds`.")
        if self.student_rounds < 0:
            raise ValueError(f"`student_rounds` should be at least 0, got {self.student_rounds}.")
        if self.student is not None and not self.student_rounds:
            raise ValueError("`student` changes the students of `student_rounds`: say how many rounds there are.")
        if self.resume and self.overwrite:
            raise ValueError("`resume` keeps what is in output_dir and `overwrite` replaces it: give one of them.")


Arguments = tuple[ModelArguments, DataArguments, RunArguments, TransferConfig]


def parse_arguments(argv: Sequence[str] | None = None, **fixed: Any) -> Arguments:
    """Arguments from `[CONFIG.yaml] [--key value ...]`; the command line wins over the file.

    Values are read as YAML, so that `--objectives '{cdan: {}, mcc: {temperature: 2.5}}'` works.

    Args:
        argv: without the program's name; of this process by default.
        fixed: values that win over both.

    Raises:
        ValueError: an unknown key, or a value of another type or out of range.
        FileNotFoundError: there is no such file.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    values = read_yaml(argv.pop(0)) if argv and not argv[0].startswith("--") else {}
    values |= {**read_overrides(argv), **fixed}
    parser = HfArgumentParser((ModelArguments, DataArguments, RunArguments, TransferConfig))
    known = {name for cls in parser.dataclass_types for name in cls.__dataclass_fields__}
    unknown = sorted(set(values) - known)
    if unknown:
        raise ValueError(f"unknown arguments {unknown}; `hf-transfer adapt --explain` lists the accepted ones.")
    check_types(values, parser.dataclass_types)
    if "dataset" not in values:
        raise ValueError(
            "`dataset` is missing: a bundled name (mnist5k, optical_digits), a Hub id, a folder or a file."
        )
    return parser.parse_dict(values)


def read_yaml(path: str | Path, inside: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A YAML file that holds one mapping; its `base` names a file beside it whose values count where it has none.

    A key replaces the base's whole value, a mapping too.

    Args:
        path: the file.
        inside: the files whose base this one is.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file holds no mapping, or is its own base.
    """
    path = Path(path)
    if not path.is_file():
        named = f", the `base` of `{inside[-1]}`" if inside else ""
        raise FileNotFoundError(f"there is no file `{path}`{named}.")
    if path.resolve() in [one.resolve() for one in inside]:
        raise ValueError(f"`{path}` is its own `base`: {' -> '.join(str(one) for one in (*inside, path))}.")
    values = read_value(path.read_text(), str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"`{path}` should hold a mapping `key: value`, got a {type(values).__name__}.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"`base` in `{path}` should be the path of a YAML file from there, got {base!r}.")
    return {**read_yaml(path.parent / base, (*inside, path)), **values}


def read_overrides(argv: Sequence[str]) -> dict[str, Any]:
    """`--key value`, `--key=value` and `--flag` as a mapping, values read as YAML."""
    values, rest = {}, list(argv)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ValueError(f"expected `--key value`, got `{key}`.")
        key, has_value, value = key.removeprefix("--").partition("=")
        if not has_value:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        values[key.replace("-", "_")] = read_value(value, key)
    return values


def argument_help() -> list[tuple[str, str, str]]:
    """(name, default, help) of the arguments of our own, for help texts."""
    rows = []
    for cls in (ModelArguments, DataArguments, RunArguments):
        rows += [_help_row(item) for item in cls.__dataclass_fields__.values()]
    own = TransferConfig.__dataclass_fields__.keys() - TrainingArguments.__dataclass_fields__.keys()
    return rows + [_help_row(TransferConfig.__dataclass_fields__[name]) for name in sorted(own)]


def _help_row(item) -> tuple[str, str, str]:
    default = "" if item.default is None or "MISSING" in repr(item.default) else str(item.default)
    return item.name, default, item.metadata["help"]
