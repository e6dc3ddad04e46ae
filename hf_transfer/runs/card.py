"""What the card of a run says beside what its trainer knows: data, where the test rows come from, ranking, guard."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from hf_transfer.data.fingerprint import fingerprint
from hf_transfer.domain_adaptation.rlls import rlls_weights
from hf_transfer.evaluation.plots import plot_losses
from hf_transfer.hub import DatasetFact, MethodFact, MetricFact, PlotFact, RunFacts, TableFact
from hf_transfer.modeling.two_towers import PARTS, named_parts
from hf_transfer.models.revisions import pinned
from hf_transfer.models.short_names import packaged_name
from hf_transfer.pretraining.dat import PAPER
from hf_transfer.ranking import Ranking
from hf_transfer.runs.arguments import CORRECT, DataArguments, Experiment
from hf_transfer.runs.data import RunData
from hf_transfer.runs.probes import measured_on as probe_rows
from hf_transfer.runs.revision import MEMBERS, revision_facts
from hf_transfer.runs.saving import dataset_fact
from hf_transfer.tasks import task_named
from hf_transfer.training.card_facts import loading_facts, training_facts
from hf_transfer.training.trainer import TransferTrainer

LOG_FILE = "training_log.json"
HELD_OUT_FILE = "held_out.json"
LOSSES = "losses.png"


def run_card(
    trainer: TransferTrainer,
    experiment: Experiment,
    data: RunData,
    metrics: Mapping[str, float],
    report: Mapping[str, Any],
    folder: Path,
    source_only: Path | None = None,
) -> RunFacts:
    """The facts of a finished run.

    Args:
        trainer: with the model that is kept.
        experiment: of the run.
        data: prepared rows.
        metrics: measured on the test rows.
        report: facts of a domain adaptation, such as tables and pictures.
        folder: where the model is saved.
        source_only: folder of the source-only model, where the guard kept it in place of the adapted one.
    """
    model_args, data_args, run_args, config = experiment
    facts = {**loading_facts(trainer), **training_facts(trainer), **report}
    limits = {name: getattr(data_args, name) for name in ("max_length", "block_size", "labels_per_class")}
    parts = named_parts(model_args.architecture or {})
    facts["hyper_parameters"] = {
        **facts["hyper_parameters"],
        **{f"{PARTS[part]} started from": packaged_name(name) for part, name in parts.items()},
        **{name: value for name, value in limits.items() if value is not None},
        **told_revisions(experiment),
    }
    if data_args.dat is not None:
        keywords = {"target": data_args.dat["target"], "max_weight": data_args.dat.get("max_weight")}
        facts["methods"] = [*facts["methods"], MethodFact("DAT", PAPER, keywords)]
    if run_args.label_shift == CORRECT and source_only is None:
        facts["methods"] = [*facts["methods"], MethodFact("RLLS", rlls_weights.paper, {})]
    if source_only is not None:
        facts |= facts_of_source_only(source_only, facts, Path(config.output_dir))
    name = test_name(data_args)
    return RunFacts(
        model_name=(config.hub_model_id or Path(run_args.model_folder or config.output_dir).resolve().name).split("/")[
            -1
        ],
        model_id=str(folder),
        metrics=[
            MetricFact(metric, value, *where_measured(metric, name, model_args.task, data_args, data))
            for metric, value in metrics.items()
            if math.isfinite(value)
        ],
        datasets=used_datasets(data_args, data),
        ranking=ranking_table(run_args.from_ranking),
        **{**facts, "task": task_named(model_args.task).pipeline_tag or model_args.task},
    )


def where_measured(metric: str, name: str, task: str, data_args: DataArguments, data: RunData) -> tuple[str, str]:
    """The data set and the rows of it that a metric was measured on."""
    return probe_rows(metric, data_args.transfer_probes) or (name, measured_on(metric, task, data_args, data))


def used_datasets(data_args: DataArguments, data: RunData) -> list[DatasetFact]:
    """The datasets of a run as the card names them, the test rows too."""
    named = [(data_args.dataset, "source" if data.target is not None else "training", data.train)]
    if data_args.target_dataset:
        named.append((data_args.target_dataset, "target, unlabelled", data.target))
    names = data_args.dataset_names or {}
    facts = [
        dataset_fact(name, role, len(rows) if isinstance(rows, Dataset) else None, names) for name, role, rows in named
    ]
    if data.test is not None:
        note = f"fingerprint {fingerprint(data.test)}"
        if data.held_out:
            note += f"; rows {test_split(data_args)}, their numbers are in {HELD_OUT_FILE}"
        facts.append(replace(dataset_fact(test_path(data_args), "test", len(data.test), names), note=note))
    return facts


def test_name(data_args: DataArguments) -> str:
    """What the metrics were measured on, as the card calls it."""
    path = test_path(data_args)
    return (data_args.dataset_names or {}).get(path, path)


def test_path(data_args: DataArguments) -> str:
    """What the metrics were measured on, as it was loaded."""
    if data_args.test_split and not data_args.test_dataset:
        return data_args.dataset
    return data_args.test_dataset or data_args.target_dataset or data_args.dataset


def test_split(data_args: DataArguments) -> str:
    """Which rows of it: a split of its own, or what part of the data they were held out of."""
    if data_args.test_dataset or data_args.test_split:
        return data_args.test_split or "test"
    return "held out of the target" if data_args.target_dataset else "held out of the training data"


def measured_on(metric: str, task: str, data_args: DataArguments, data: RunData) -> str:
    """On which rows a number was measured: those of the test, episodes in an environment, or training rows."""
    told = task_named(task).measured_on(metric)
    return told or ("training rows" if data.test is None else test_split(data_args))


def ranking_table(folder: str | None) -> TableFact | None:
    """The ranking that the model was chosen by."""
    if folder is None:
        return None
    ranking = Ranking.load(folder)
    ranking = ranking.renamed({row.model: packaged_name(row.model) for row in ranking.rows})
    rows = [[row.model, row.score, row.layer, row.parameters] for row in ranking.scored]
    columns = ["model", ranking.score, "layer", "parameters"]
    return TableFact("The ranking that the model was chosen by", columns, rows, " ".join(ranking.in_words()))


def told_revisions(experiment: Experiment) -> dict[str, str]:
    """The commits of the models on the Hub that the run started from or drew on, in words."""
    facts = {name: value for name, value in revision_facts(experiment).items() if name != "base_model"}
    if members := facts.pop(MEMBERS, None):
        facts["drew on"] = ", ".join(pinned(name, commit) for name, commit in members.items())
    return facts


def held_out_of(data_args: DataArguments, data: RunData, seed: int) -> dict[str, Any] | None:
    """Which rows were held out for the test, so that others can leave the same ones out; None where none were."""
    if not data.held_out:
        return None
    named = {"dataset": test_name(data_args), "what": test_split(data_args), "seed": seed}
    return {**named, "fingerprint": fingerprint(data.test), "rows": list(data.held_out)}


def training_log(trainer: TransferTrainer, experiment: Experiment) -> dict[str, Any]:
    """Settings and losses of a training, and the commit that it began with, for whoever shows this model later."""
    settings = training_facts(trainer)["hyper_parameters"]
    return {"hyper_parameters": settings, **revision_facts(experiment), "log_history": trainer.state.log_history}


def facts_of_source_only(folder: Path, facts: Mapping[str, Any], output_dir: Path) -> dict[str, Any]:
    """Settings and losses of the source-only training in place of those of the adaptation.

    Args:
        folder: of the source-only model.
        facts: of the adaptation.
        output_dir: where the picture goes.
    """
    plots = [plot for plot in facts.get("plots", ()) if Path(plot.path).name != LOSSES]
    path = folder / LOG_FILE
    if not path.is_file():  # a run of an earlier version
        return {"plots": plots, "hyper_parameters": {}}
    log = json.loads(path.read_text())
    picture = output_dir / "figures" / f"source_only_{LOSSES}"
    picture.parent.mkdir(parents=True, exist_ok=True)
    if plots and plot_losses(log["log_history"], picture):
        plots.insert(0, PlotFact(picture, "Loss of the source-only training"))
    return {"plots": plots, "hyper_parameters": log["hyper_parameters"]}
