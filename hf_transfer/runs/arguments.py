"""The arguments of a run, from one YAML file and overrides on the command line."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple, get_type_hints

from transformers import HfArgumentParser, TrainingArguments

from hf_transfer.core.plain_types import accepted_types
from hf_transfer.core.registry import nearest
from hf_transfer.runs.values import check_types, read_value
from hf_transfer.tasks.arguments import DataArguments, ModelArguments
from hf_transfer.training.trainer import TransferConfig

IGNORE, CORRECT = LABEL_SHIFTS = ("ignore", "correct")
"""What a run does where class shares differ between the domains."""


@dataclass
class RunArguments:
    """How a run treats its output folder and the Hub."""

    resume: bool = field(default=False, metadata={"help": "Go on from the newest complete checkpoint of output_dir."})
    overwrite: bool = field(default=False, metadata={"help": "Replace what is in output_dir."})
    model_folder: str | None = field(
        default=None,
        metadata={
            "help": "Where the finished model goes, such as flowformer-base, which then loads by that name; `model` "
            "in output_dir when left out."
        },
    )
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
    label_shift: str = field(
        default=IGNORE,
        metadata={
            "help": "Domain adaptation: correct estimates the target's class shares by a short source-only training, "
            "or the guard's, without target labels, weighs source rows by class and has validators ask for these "
            "shares; ignore takes them to be those of the source."
        },
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
        if self.label_shift not in LABEL_SHIFTS:
            raise ValueError(f"`label_shift` should be one of {list(LABEL_SHIFTS)}, got {self.label_shift!r}.")
        if self.student_rounds and self.label_shift == CORRECT:
            raise ValueError("`label_shift: correct` estimates for one training, not for rounds: leave one out.")
        if self.student_rounds < 0:
            raise ValueError(f"`student_rounds` should be at least 0, got {self.student_rounds}.")
        if self.student_rounds and self.model_folder is not None:
            raise ValueError(
                "`student_rounds` saves a model a round, each in its own folder: leave `model_folder` out."
            )
        if self.student is not None and not self.student_rounds:
            raise ValueError("`student` changes the students of `student_rounds`: say how many rounds there are.")
        if self.resume and self.overwrite:
            raise ValueError("`resume` keeps what is in output_dir and `overwrite` replaces it: give one of them.")


CLASSES = (ModelArguments, DataArguments, RunArguments, TransferConfig)
"""Whose fields are the arguments of a run."""
WHOLE = "metrics are of all rows at once. `eval_accumulation_steps` moves predictions off the device as they come."
NOT_READ: dict[str, tuple[Any, str]] = {
    "batch_eval_metrics": (False, WHOLE),
    "eval_do_concat_batches": (True, WHOLE),
    "resume_from_checkpoint": (
        None,
        "`resume: true` (--resume) goes on from the newest whole checkpoint of `output_dir`; to begin anew from the "
        "weights of another, name its folder as `model`.",
    ),
    "do_predict": (False, "`hf-transfer predict` writes predictions of the saved model."),
}
"""Arguments of the Trainer that a run would pass over in silence -> their usual value, and what to do."""


class Experiment(NamedTuple):
    """Everything that a run is told: read and checked once, and handed down."""

    model: ModelArguments
    data: DataArguments
    run: RunArguments
    config: TransferConfig


def parse_arguments(argv: Sequence[str] | None = None, **fixed: Any) -> Experiment:
    """The experiment of `[CONFIG.yaml] [--key value ...]`; the command line wins over the file.

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
    values = with_text_columns(values) | {**with_text_columns(read_overrides(argv)), **fixed}
    parser = HfArgumentParser(CLASSES)
    known = {name for cls in parser.dataclass_types for name in cls.__dataclass_fields__}
    unknown = sorted(map(str, set(values) - known))
    if unknown:
        advice = "".join(nearest(name, known) for name in unknown)
        raise ValueError(f"unknown arguments {unknown}; `hf-transfer adapt --explain` lists those accepted.{advice}")
    check_types(values, parser.dataclass_types)
    if "dataset" not in values:
        raise ValueError(
            "`dataset` is missing: a bundled name (mnist5k, optical_digits), a Hub id, a folder or a file."
        )
    experiment = Experiment(*parser.parse_dict(values))
    for name, (usual, advice) in NOT_READ.items():
        if getattr(experiment.config, name) != usual:
            raise ValueError(f"`{name}` is not read here: {advice}")
    return experiment


def with_text_columns(values: dict[str, Any]) -> dict[str, Any]:
    """The values with `text_column: text`, as other commands name it, as `text_columns: [text]`."""
    name = "text_column" if "text_column" in values and "text_columns" not in values else "text_columns"
    if isinstance(values.get(name), str):
        return {one: value for one, value in values.items() if one != name} | {"text_columns": [values[name]]}
    return {"text_columns" if one == name else one: value for one, value in values.items()}


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
    values = read_value(text_of(path), str(path)) or {}
    if not isinstance(values, dict):
        raise ValueError(f"`{path}` should hold a mapping `key: value`, got a {type(values).__name__}.")
    base = values.pop("base", None)
    if base is None:
        return values
    if not isinstance(base, str):
        raise ValueError(f"`base` in `{path}` should be the path of a YAML file from there, got {base!r}.")
    return {**read_yaml(path.parent / base, (*inside, path)), **values}


def text_of(path: Path) -> str:
    """What a text file holds.

    Raises:
        ValueError: it is not in UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise ValueError(f"`{path}` is no text in UTF-8 ({error}): save it in that encoding.") from error


def read_overrides(argv: Sequence[str]) -> dict[str, Any]:
    """`--key value`, `--key=value` and `--flag` as a mapping, values read as YAML; a name such as 2026 as a string."""
    values, rest = {}, list(argv)
    while rest:
        key = rest.pop(0)
        if not key.startswith("--"):
            raise ValueError(f"expected `--key value`, got `{key}`.")
        key, has_value, value = key.removeprefix("--").partition("=")
        if not has_value:
            value = rest.pop(0) if rest and not rest[0].startswith("--") else "true"
        key, read = key.replace("-", "_"), read_value(value, key)
        is_number = isinstance(read, int | float) and not isinstance(read, bool)
        values[key] = value if is_number and key.rpartition(".")[2] in names_of_strings() else read
    return values


@cache
def names_of_strings() -> frozenset[str]:
    """The arguments of a run, and keys of a plan, that take strings and no numbers."""
    hints = {name: hint for cls in CLASSES for name, hint in get_type_hints(cls).items()}
    accepted = {name: accepted_types(hint) or () for name, hint in hints.items()}
    names = {name for name, kinds in accepted.items() if str in kinds and not {int, float} & set(kinds)}
    return frozenset({*names, "train", "target", "test", "validation", "source", "text_column", "text_columns"})


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
