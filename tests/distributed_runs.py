"""Short trainings that come out alike on one process and on two. `test_distributed.py` runs them both ways.

ACCELERATE_USE_CPU=true python -m tests.distributed_runs OUTPUT_FOLDER NAME...
"""

from __future__ import annotations

import contextlib
import io
import json
import sys
from collections.abc import Callable, Sequence
from functools import cache, partial
from pathlib import Path

import torch
import torch.distributed as dist
from accelerate import PartialState, debug_launcher
from datasets import Dataset, concatenate_datasets

from hf_transfer.cli import app as cli
from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.data.collators import PaddingCollator
from hf_transfer.data.masked_steps import MaskedStepsCollator
from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.models.flowformer import FlowformerForTimeSeriesPretraining, FlowformerForTrajectoryPretraining
from hf_transfer.multi_model import HubPathway
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.converters import convert_model
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import test_unit_matrix, test_units, tiny
from tests.models.flowformer.tiny import tiny_config
from tests.runs.folders import save_digits, save_image_model
from tests.training import test_text_pretraining as text_pretraining
from tests.tuners.conftest import adapted_model

ADVERSARIAL = {"cdan": {"hidden_size": 8}, "mcc": {}, "dann": {"hidden_size": 8}}
STEPS, STOP = 4, 2
RESUMED = ("cross_entropy", "adversarial", "difference", "moco", "spans", "pathways")
SAVED = (*RESUMED, "reopened")
"""Runs with checkpoints, which save their model in the end."""
LONG = (*SAVED, "maps", "thawing", "whole_batch", "bi_tuning", "side", "residual")
"""Runs of all steps, as what they keep of earlier ones matters late; the others end at `STOP`."""
TEXTS = ("masked", "permuted", "spans", "packed")
"""Cases of `tests.training.test_text_pretraining`; processes get different numbers of labels, and packed rows."""
SERIES = ("masked_steps", "next_step", "trajectories")
"""Losses that are means over steps; processes get different numbers of them."""
TUNED = {"residual": "serial", "difference": "difference", "reopened": "difference", "side": "side"}
OF_THE_WHOLE_BATCH = {
    "flexmatch": {"threshold": 0.4, "memory": 24},
    "self_ensembling": {"threshold": 0.4, "balance": 0.5},
    "afn": {"norm": 6.0},
    "localized_dd": {"radius": 2.3, "max_reversal": 1.0},
}
"""What they compute of a batch is no mean over its rows; the thresholds leave some of the digits out."""
QUEUE_SIZE, RELATED_CLASSES = 8, 6
SELF_SUPERVISED = {
    "moco": {"queue_size": 48, "momentum": 0.9, "projection_dim": 8},
    "moco_v3": {"momentum": 0.9, "projection_dim": 8, "hidden_size": 8},
    "simclr": {"temperature": 0.5, "projection_dim": 8},
    "simsiam": {"projection_dim": 8, "hidden_size": 4},
    "lejepa": {"gaussian_share": 0.5, "projection_dim": 8, "hidden_size": 8, "directions": 16},
}
PARTS = {
    **{f"tokens_{name}": ("tokens", (name,)) for name in ("adda", "mcd")},
    "tokens": ("tokens", tuple(name for name in test_unit_matrix.PLAIN if name not in test_unit_matrix.OF_MAPS)),
    "pixels": ("pixels", tuple(name for name in test_unit_matrix.PLAIN if name != "dacs")),
    "maps": ("pixels", ()),
}
"""Runs whose units are parts of rows: all objectives at once, and those whose steps alternate. Processes get different
numbers of tokens; of `maps`, which has one domain, numbers of pixels with a class. `dacs` draws
what it pastes in each process for itself."""
EPISODES = "{ways: 3, shots: 1, queries: 2, episodes: 21}"


def config(folder: Path, batch_size: int, **changes) -> TransferConfig:
    """Of the run that the folder is named by."""
    return TransferConfig(
        output_dir=str(folder),
        per_device_train_batch_size=batch_size,
        per_device_eval_batch_size=batch_size,
        max_steps=STEPS if folder.name in LONG else STOP,
        save_strategy="steps" if folder.name in SAVED else "no",
        save_steps=STOP,
        logging_steps=1,
        optim="sgd",  # Adam would blow rounding errors of tiny gradients up to whole steps
        learning_rate=0.1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        **changes,
    )


def half_labelled(rows: Dataset) -> Dataset:
    """Two in three rows of the first half lose their label: processes get different numbers of labels."""
    labels = rows.with_format(None)["labels"]
    known = [label if place % 3 == 0 or place > 32 else IGNORED_LABEL for place, label in enumerate(labels)]
    return tiny.with_column(rows, "labels", known)


def with_parity(rows: Dataset) -> Dataset:
    """A further label column, known of the rows of which `half_labelled` knows the digit."""
    digits = half_labelled(rows).with_format(None)["labels"]
    return tiny.with_column(rows, "parity", [one if one == IGNORED_LABEL else one % 2 for one in digits])


@cache
def digits() -> Dataset:
    return tiny.digit_rows(0, 64)


def makers() -> dict[str, Callable[[Path, int], TransferTrainer]]:
    """What makes the trainer of each run, by name, of its folder and the size of a process's batches."""
    weights = {"l2_sp": {}, "bss": {}}
    keys = {"bi_tuning": {"queue_size": QUEUE_SIZE, "momentum": 0.9, "projection_dim": 8}}
    two, half = tiny.two_domains(digits()), half_labelled(digits())
    thawing = {"schedules": {"ulmfit": {"unfreeze_until": 0.75, "decay": 1.0}}}
    return {
        **{name: partial(tuned_trainer, kind) for name, kind in TUNED.items()},
        **{name: partial(self_supervised_trainer, name) for name in SELF_SUPERVISED},
        **{name: partial(text_trainer, name) for name in TEXTS},
        **{name: partial(series_trainer, name) for name in SERIES},
        **{name: partial(trainer_of_parts, *PARTS[name]) for name in PARTS},
        "measured": partial(image_trainer, half, measured),
        "bi_tuning": partial(image_trainer, half, keys),
        "taught": partial(image_trainer, half, taught),
        "zoo_tuning": zoo_trainer,
        "pathways": pathways_trainer,
        "streamed": streamed_trainer,
        "maml": maml_trainer,
        "alternating": partial(image_trainer, two, {"mcd": {}}, trainer=AlternatingTrainer),
        "label_sets": partial(image_trainer, with_parity(digits()), {"label_sets": {"columns": {"parity": 2}}}),
        "cross_entropy": partial(image_trainer, digits(), {}),
        "adversarial": partial(image_trainer, two, ADVERSARIAL, seed=1),
        "thawing": partial(image_trainer, digits(), {}, **thawing),
        "whole_batch": partial(image_trainer, two, OF_THE_WHOLE_BATCH, spread=0.3),
        "accumulated": partial(image_trainer, half, weights, gradient_accumulation_steps=2),
    }


def image_trainer(
    rows: Dataset,
    objectives: dict | Callable[[], dict],
    folder: Path,
    batch_size: int,
    *,
    trainer: type[TransferTrainer] = TransferTrainer,
    spread: float = 0.02,
    **changes,
) -> TransferTrainer:
    """A run of a small image classifier; with a `spread` of 0.3 its answers to two digits differ."""
    torch.manual_seed(0)
    model, args = tiny.vit(initializer_range=spread), config(folder, batch_size, **changes)
    objectives = objectives() if callable(objectives) else objectives
    return trainer(model, args, train_dataset=rows, objectives=objectives)


def measured() -> dict[str, dict]:
    return {
        "co_tuning": {"source_head": torch.nn.Linear(16, RELATED_CLASSES)},
        "ewc": {"samples": 20, "strength": 10.0},
        "delta": {"samples": 20},
    }


def taught() -> dict[str, dict]:
    teacher, other = (tiny.vit(initializer_range=0.3) for _ in range(2))
    distilled = {"distillation": {"teacher": teacher}, "feature_distillation": {"teacher": teacher}}
    return {**distilled, "b_tuning": {"teacher": [teacher, other], "weight": 1.0}}


def maml_trainer(folder: Path, batch_size: int) -> TransferTrainer:
    episodes = {"ways": 4, "shots": 1, "queries": 1, "inner_steps": 2, "episodes_per_batch": batch_size // 8}
    return image_trainer(digits(), {"maml": episodes}, folder, batch_size, task_loss_weight=0.0)


def trainer_of_parts(units: str, names: tuple[str, ...], folder: Path, batch_size: int) -> TransferTrainer:
    """A tagger or a SegFormer with these objectives, and without what is drawn or counted for each process alone."""
    torch.manual_seed(0)
    model, rows, more = test_units.setting(units, None)
    keywords = {name: test_unit_matrix.keywords_of(name, model) for name in names}
    rows = rows if names else rows.remove_columns("domain")
    rows = concatenate_datasets([rows] * (64 // len(rows))).with_format(rows.format["type"])
    without_batch_norm(model)
    args = config(folder, batch_size // 2)
    trainer = TransferTrainer(model, args, objectives=keywords, train_dataset=rows, **more)
    for module in trainer.transfer_model.modules():
        for rate in ("p", "drop_prob"):
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)
    return trainer


def without_batch_norm(model: torch.nn.Module) -> None:
    """Batch norms become group norms: each process would have statistics of its own."""
    for module in list(model.modules()):
        for name, child in list(module.named_children()):
            if isinstance(child, torch.nn.BatchNorm2d):
                setattr(module, name, torch.nn.GroupNorm(2, child.num_features))


def streamed_trainer(folder: Path, batch_size: int) -> TransferTrainer:
    """A domain adaptation whose rows are read as they come, by the first process for both."""
    columns = {name: [torch.as_tensor(row[name]).tolist() for row in digits()] for name in ("pixel_values", "labels")}
    stream = Dataset.from_dict(columns).to_iterable_dataset().shuffle(seed=0, buffer_size=16)
    torch.manual_seed(0)
    args = config(folder, batch_size)
    objectives = {"coral": {}}
    return DomainAdaptationTrainer(
        tiny.vit(), args, train_dataset=stream, target_dataset=stream, objectives=objectives, validation_rows=16
    )


def zoo_trainer(folder: Path, batch_size: int) -> TransferTrainer:
    """A run whose layers mix the kernels of two models by gates of the whole batch."""
    state, sources = PartialState(), [folder.with_name(f"source_{index}") for index in range(2)]
    for seed, source in enumerate(sources):
        torch.manual_seed(seed)
        model = tiny.vit(initializer_range=0.3)
        if state.is_main_process:
            model.save_pretrained(source)
    state.wait_for_everyone()
    torch.manual_seed(2)
    model = tiny.vit(initializer_range=0.3)
    model = convert_model(model, {"zoo_tuning": {"checkpoints": [str(source) for source in sources]}})
    with torch.no_grad():
        for experts in sidecars_of(model)["zoo_tuning"].layers.values():
            experts.gates.expand.weight.normal_(std=0.3)  # gates that differ from row to row
    return TransferTrainer(model, config(folder, batch_size), train_dataset=digits())


def pathways_trainer(folder: Path, batch_size: int) -> TransferTrainer:
    """A run of a hub with one model a row: processes leave models out, and draw noise for the choice."""
    torch.manual_seed(2)
    model = HubPathway.of([tiny.vit(initializer_range=0.3) for _ in range(3)], top=1)
    args, objectives = config(folder, batch_size), {"pathways": {"exploration": 1.0}}
    return TransferTrainer(model, args, train_dataset=half_labelled(digits()), objectives=objectives)


def text_trainer(name: str, folder: Path, batch_size: int) -> PretrainingTrainer:
    """A run of pre-training on text with one of some collators."""
    rows = concatenate_datasets([text_pretraining.rows()] * 3).select(range(64))
    model, collator = text_pretraining.CASES[name]
    torch.manual_seed(0)
    return PretrainingTrainer(model(0.0), config(folder, batch_size), train_dataset=rows, data_collator=collator())


def series_trainer(name: str, folder: Path, batch_size: int) -> PretrainingTrainer:
    """A run of pre-training on series or on trajectories of 2 to 12 steps, with one loss."""
    torch.manual_seed(0)
    fields = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0, "initializer_range": 0.3}
    if name == "trajectories":
        model = FlowformerForTrajectoryPretraining(tiny_config("trajectory", **fields))
        rows, collator = trajectory_rows(), None
    else:
        fields |= {"is_causal": True} if name == "next_step" else {}
        model = FlowformerForTimeSeriesPretraining(tiny_config("time_series", **fields))
        rows = series_rows()
        collator = PaddingCollator("past_values") if name == "next_step" else MaskedStepsCollator(0.3, 2.0)
    return PretrainingTrainer(model, config(folder, batch_size), train_dataset=rows, data_collator=collator)


def lengths_of_series(generator: torch.Generator) -> list[int]:
    return torch.randint(2, 13, (64,), generator=generator).tolist()


def series_rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    lengths = lengths_of_series(generator)
    return Dataset.from_dict({"past_values": [torch.randn(n, 3, generator=generator).tolist() for n in lengths]})


def trajectory_rows() -> Dataset:
    generator = torch.Generator().manual_seed(0)
    lengths = lengths_of_series(generator)
    sizes = {"states": 5, "actions": 2, "returns_to_go": 1}
    columns = {name: torch.randn(64, 12, size, generator=generator) for name, size in sizes.items()}
    mask = (torch.arange(12) < torch.tensor(lengths)[:, None]).long()
    columns |= {"labels": columns["actions"], "timesteps": torch.arange(12).expand(64, 12), "attention_mask": mask}
    return Dataset.from_dict({name: value.tolist() for name, value in columns.items()}).with_format("torch")


def tuned_trainer(kind: str, folder: Path, batch_size: int) -> TransferTrainer:
    """A run with one of our tuners.

    `difference` is projected before its checkpoint; `reopened` after the checkpoint that it loads at its end, so that
    it is projected once more.
    """
    adapters = {"difference": {"project_at": STOP / STEPS}, "reopened": {"project_at": 0.7}}
    youngest = {"load_best_model_at_end": True, "metric_for_best_model": "age", "greater_is_better": False}
    changes = {"reopened": {"eval_strategy": "steps", "eval_steps": STOP, **youngest}}
    model = adapted_model("vit", kind, **adapters.get(folder.name, {}))
    args = config(folder, batch_size, **changes.get(folder.name, {}))
    made = TransferTrainer(model, args, train_dataset=digits(), eval_dataset=digits().select(range(16)))
    made.compute_metrics = lambda _: {"age": made.state.global_step}
    return made


def self_supervised_trainer(name: str, folder: Path, batch_size: int) -> PretrainingTrainer:
    """A backbone pre-trained by an objective that compares two views."""
    torch.manual_seed(0)
    model = tiny.flowformer(initializer_range=0.3).flowformer  # weights at which two digits differ
    args, evaluated = config(folder, batch_size, augmentation={"views": "small"}), digits().select(range(63))
    objectives = {name: SELF_SUPERVISED[name]}
    return PretrainingTrainer(model, args, train_dataset=digits(), eval_dataset=evaluated, objectives=objectives)


def validation_score(folder: Path, batch_size: int) -> float:
    """The validator's score over an odd number of rows."""
    rows = digits()
    torch.manual_seed(0)
    trainer = DomainAdaptationTrainer(
        tiny.vit(),
        config(folder / "validator", batch_size),
        train_dataset=rows.select(range(30)),
        target_dataset=rows.select(range(30, 63)),
    )
    return trainer.evaluate()["eval_information_maximization"]


def validation_score_of_tokens(folder: Path, batch_size: int) -> float:
    """The validator's score over the tokens of an odd number of rows."""
    torch.manual_seed(0)
    model, rows, more = test_units.setting("tokens", None)
    args = config(folder / "tokens_validator", batch_size // 4)
    trainer = DomainAdaptationTrainer(model, args, train_dataset=rows.select(range(15)), **more)
    return trainer.evaluate()["eval_information_maximization"]


def collapse_gauges(folder: Path, batch_size: int) -> list[float]:
    """Those of an odd number of rows."""
    metrics = self_supervised_trainer("simclr", folder / "gauges", batch_size).evaluate()
    return [metrics["eval_rank_me"], metrics["eval_channel_spread"]]


def print_few_shot(folder: Path, batch_size: int) -> None:
    """Keep what `hf-transfer evaluate --few-shot` prints on this process, of an odd number of rows."""
    state, model, rows = PartialState(), folder / "model", folder / "rows"
    torch.manual_seed(0)
    if state.is_main_process:
        save_image_model(model, tiny.vit(num_labels=2))
        save_digits(rows, 0, 63)
    state.wait_for_everyone()
    command = ["evaluate", str(model), "--dataset", str(rows), "--batch-size", str(batch_size)]
    with contextlib.redirect_stdout(io.StringIO()) as printed:
        cli.app([*command, "--few-shot", EPISODES], standalone_mode=False)
    (folder / f"printed_by_{state.process_index}").write_text(printed.getvalue())


def run(
    folder: Path, batch_size: int, names: Sequence[str], resumed: Sequence[str] = ()
) -> dict[str, dict[str, torch.Tensor]]:
    """The final state of these runs, and that of some of them resumed from their middle as well."""
    ends, losses, moved, reopened = {}, {}, {}, None
    made = {name: make for name, make in makers().items() if name in names}
    for name, make in made.items():
        trainer = make(folder / name, batch_size)
        start = backbone_in_training(trainer)
        trainer.train()
        ends[name] = {key: value.clone() for key, value in trainer.transfer_model.state_dict().items()}
        losses[name] = [log["loss"] for log in trainer.state.log_history if "loss" in log]
        moved[name] = max((ends[name][key] - value).abs().max().item() for key, value in start.items())
        reopened = reopened or trainer.state.best_model_checkpoint
        if name in SAVED or name in TUNED:
            trainer.save_model(str(folder / f"saved_by_{trainer.args.process_index}" / name))
    for name in resumed:
        trainer = made[name](folder / name, batch_size)
        for key in backbone_in_training(trainer):
            torch.nn.init.zeros_(trainer.transfer_model.get_parameter(key))
        trainer.train(resume_from_checkpoint=str(folder / name / f"checkpoint-{STOP}"))
        ends[f"{name}_resumed"] = dict(trainer.transfer_model.state_dict())
    print_few_shot(folder, batch_size)
    facts = {"score": validation_score(folder, batch_size), "tokens": validation_score_of_tokens(folder, batch_size)}
    facts |= {"gauges": collapse_gauges(folder, batch_size)}
    if not dist.is_initialized() or dist.get_rank() == 0:
        facts |= {"world_size": trainer.args.world_size, "losses": losses, "moved": moved, "reopened": reopened}
        facts["printed"] = (folder / "printed_by_0").read_text()
        (folder / "facts.json").write_text(json.dumps(facts))
    return ends


def backbone_in_training(trainer: TransferTrainer) -> dict[str, torch.Tensor]:
    """A copy of the trainable weights of backbone and adapters, by name."""
    return {
        name: parameter.detach().clone()
        for name, parameter in trainer.transfer_model.named_parameters()
        if parameter.requires_grad and name.startswith("model.") and "classifier" not in name
    }


def run_as_one_of_two(folder: Path, names: Sequence[str]) -> None:
    ends = run(folder, 8, names, resumed=[name for name in RESUMED if name in names])
    torch.save(ends, folder / f"rank_{dist.get_rank()}.pt")
    dist.barrier()
    dist.destroy_process_group()


if __name__ == "__main__":
    torch.set_num_threads(1)
    # two copies of this process: what it imported is imported once
    debug_launcher(run_as_one_of_two, (Path(sys.argv[1]), sys.argv[2:]), num_processes=2)
