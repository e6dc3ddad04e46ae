"""The candidates that a plan pre-trains: what each costs, its training, and what stands for it before that."""

from __future__ import annotations

from collections.abc import Mapping
from functools import partial
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from accelerate import PartialState
from transformers import AutoModel, set_seed

from hf_transfer.data.bundled import load
from hf_transfer.data.fingerprint import fingerprint
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.lifecycle.budget import GIGABYTE, Work
from hf_transfer.runs.lifecycle.candidates import described, pinned_member, revision_of_hub, weights
from hf_transfer.runs.lifecycle.encoders import save_encoder
from hf_transfer.runs.lifecycle.measure import STANDS_IN, STEPS, measure
from hf_transfer.runs.lifecycle.plan import ARCHITECTURE, Plan
from hf_transfer.runs.lifecycle.pretraining import Pretraining, starts_as
from hf_transfer.runs.lifecycle.progress import Progress
from hf_transfer.runs.lifecycle.store import Store, key_of
from hf_transfer.runs.lifecycle.training import Training, train
from hf_transfer.runs.named_models import with_names
from hf_transfer.runs.saving import HELD_OUT
from hf_transfer.runs.single_run import MODEL_FOLDER
from hf_transfer.runs.single_run import make_pretraining as make_trainer

STAGE = "pretrain"
BYTES_OF_A_WEIGHT = 4
DRAWN = ("test", "validation")
DEFAULT_EPOCHS, DEFAULT_BATCH = 3, 8
"""Of `hf-transfer pretrain`, as of transformers."""


def make_pretraining(one: Pretraining, plan: Plan, store: Store, rows: Mapping[str, Any]) -> Training:
    """An entry of the plan as a training.

    Args:
        one: entry of `pretrain`.
        plan: of the lifecycle.
        store: of finished pieces.
        rows: facts of the data.

    Raises:
        ValueError: it names a dataset of which the plan holds rows out.
    """
    given, paths = dict(one.arguments), {}
    if "use_cpu" in plan.training:
        given.setdefault("use_cpu", plan.training["use_cpu"])
    if one.rows is not None:
        paths = {"dataset": str(Path(rows["folder"]) / one.rows), "dataset_names": rows["names"]}
        depends: dict[str, Any] = {"rows": rows["fingerprints"][one.rows]}
    else:
        refuse_held_out(one, rows)
        depends = {"rows": fingerprint_of(given)}
    given = with_names(given, partial(pinned_member, store=store))
    if given.get("model") is not None:
        start = described(given["model"], store)
        depends["revision"] = given.get("revision", start["revision"])
        paths |= {} if "revision" in given else revision_of_hub(start)
    return Training(f"{STAGE}: {one.name}", given, depends, None, False, paths, is_pretraining=True)


def refuse_held_out(one: Pretraining, rows: Mapping[str, Any]) -> None:
    """Raises ValueError where the dataset of an entry holds rows that the plan chooses or measures by."""
    for path, name in rows["names"].items():
        role = Path(path).name
        if role in DRAWN and name.removesuffix(HELD_OUT) == one.arguments["dataset"]:
            raise ValueError(
                f"`pretrain`: `{one.name}` reads `{one.arguments['dataset']}`, which the {role} rows are part of: "
                "with `rows: train` or `rows: target` in place of its `dataset` it reads the others."
            )


def fingerprint_of(arguments: Mapping[str, Any]) -> str | None:
    """Of the dataset that a pre-training names; None for a stream, which is not read before."""
    if arguments.get("streaming"):
        return None
    with PartialState().main_process_first():
        return fingerprint(
            load(
                arguments["dataset"],
                arguments.get("split"),
                config=arguments.get("dataset_config"),
                options=arguments.get("dataset_options"),
            )
        )


def stand_ins(plan: Plan, store: Store) -> list[dict[str, Any]]:
    """What the models are before they are pre-trained, as candidates; those are left out whose sizes are not known."""
    found = []
    for one in plan.pretrain:
        start = starts_as(one)
        if start is not None:
            known = described(start["model"], store) if "model" in start else {"name": one.name, "revision": None}
            other = {ARCHITECTURE: dict(start[ARCHITECTURE])} if ARCHITECTURE in start else {}
            found.append({"bytes": None, **known, "shown": one.name, STANDS_IN: True, **other})
    return found


def pretraining_work(plan: Plan, store: Store, progress: Progress, rows: Mapping[str, Any], steps: int) -> list[Work]:
    """What every pre-training costs; with 0 steps nothing, but that model, data and arguments fit is known.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        progress: whose log gets what is printed.
        rows: facts of the data.
        steps: to measure.

    Raises:
        ValueError: an entry cannot be trained, or needs more than the budget has.
    """
    found = []
    for rank, one in enumerate(plan.pretrain):
        training = make_pretraining(one, plan, store, rows)
        measured = measure(training, store, progress, 0 if one.is_random else steps)
        if not steps:
            continue
        taken = 0 if one.is_random else steps_of(training.settings, measured["rows"])
        minutes = (measured["start"] + taken * (measured["step"] or 0.0)) / 60
        size = measured["parameters"] * BYTES_OF_A_WEIGHT
        found.append(Work(STAGE, one.name, "", rank, minutes, 0.0, measured["memory"] or 0, True, size))
    refuse_too_large(found, plan)
    return found


def refuse_too_large(work: list[Work], plan: Plan) -> None:
    """Raises ValueError where pre-training alone is more than the budget: none of it can be left out."""
    for one in work:
        if plan.memory is not None and one.memory > plan.memory:
            raise ValueError(
                f"`budget.memory`: {one.in_words()} needs about {one.memory / GIGABYTE:.2f} GB of "
                f"{plan.memory / GIGABYTE:.2f} GB. Give it a smaller model or batch, or raise the budget."
            )
    total = sum(one.minutes(1) for one in work)
    if plan.minutes is not None and total > plan.minutes:
        raise ValueError(
            f"`budget.minutes`: pre-training alone needs about {total:.1f} minutes of {plan.minutes:g}. Give it fewer "
            "steps, or raise the budget."
        )


def steps_of(settings: Mapping[str, Any], rows: int | None) -> int:
    """How many steps a pre-training takes.

    Args:
        settings: its arguments.
        rows: that it trains on; None for a stream, which names `max_steps`.
    """
    if (given := settings.get("max_steps", -1)) > 0:
        return given
    batch = settings.get("per_device_train_batch_size", DEFAULT_BATCH) * settings.get("gradient_accumulation_steps", 1)
    a_pass = -(-(rows or 0) // (batch * PartialState().num_processes))
    return max(1, round(a_pass * settings.get("num_train_epochs", DEFAULT_EPOCHS)))


def pretrain(
    plan: Plan, store: Store, progress: Progress, rows: Mapping[str, Any]
) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """Pre-train what is not pre-trained yet.

    Args:
        plan: of the lifecycle.
        store: of finished pieces.
        progress: told of what is done.
        rows: facts of the data.

    Returns:
        The models as candidates, and the records of their trainings.

    Raises:
        ValueError: before any training, as `pretraining_work`.
    """
    is_limited = plan.minutes is not None or plan.memory is not None
    pretraining_work(plan, store, progress, rows, STEPS if is_limited else 0)
    found, records = [], []
    for one in plan.pretrain:
        training = make_pretraining(one, plan, store, rows)
        if one.is_random:
            record = save_random(training, store, progress)
        else:
            record = train(training, store, progress, Path(rows["folder"]))
        folder = Path(record["model"])
        facts = {"revision": key_of(training.key), "bytes": sum(weights(folder).values())}
        found.append({"name": str(folder), "shown": one.name, **facts})
        records.append({**record, "shown": one.name})
    return found, records


def save_random(training: Training, store: Store, progress: Progress) -> dict[str, Any]:
    """The record of an encoder with random weights of the training's seed, saved with what reads its rows.

    Args:
        training: that takes no step.
        store: of finished pieces.
        progress: told of what is done.
    """
    found = store.find(training.name, training.key)
    if found is not None:
        progress.found(training.name)
        return found
    folder = store.folder(training.name, training.key) / MODEL_FOLDER
    with progress.doing(training.name), TemporaryDirectory() as scratch:
        arguments = {**training.settings, **training.paths, "max_steps": 1, "save_strategy": "no"}
        trainer, _ = make_trainer(parse_arguments([], **arguments, output_dir=scratch))
        set_seed(training.settings["seed"])
        save_encoder(AutoModel.from_config(trainer.adapted_model.config), trainer.processing_class, folder)
    record = {"name": training.name, "model": str(folder), "test": {}, "losses": [], "seconds": 0.0}
    return store.keep(training.name, training.key, {**record, "settings": dict(training.settings)})
