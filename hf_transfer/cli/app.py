"""The console script `hf-transfer`: every step of the lifecycle by itself.

Nothing of the package but other commands is imported at the top, so that `hf-transfer doctor` runs when the rest
cannot, and help is there at once.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Annotated

import typer

from hf_transfer.cli import doctor as installation
from hf_transfer.cli.command import Command, tell_next
from hf_transfer.cli.folders import card, compare, export, pull
from hf_transfer.cli.lifecycle import run as run_lifecycle
from hf_transfer.cli.measuring import divergence, evaluate, predict
from hf_transfer.cli.methods import methods
from hf_transfer.core.plain_types import at_home

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    # --max_steps and --max-steps are one option, in every command
    context_settings={"token_normalize_func": lambda name: name.replace("_", "-")},
    help="Transferability in deep learning: pre-train, rank, adapt, evaluate and publish Hugging Face models.",
    epilog="Every command takes [CONFIG.yaml] as its first word; options win over it. Exit codes: 0 done, 1 `doctor` "
    "found something to mend, 2 refused input, with the reason, 130 stopped by Ctrl-C.",
)
OWN_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}
app.command("run", context_settings=OWN_ARGUMENTS)(run_lifecycle)


def main() -> None:
    """Run a command; a mistake in the input is one paragraph, not a traceback."""
    try:
        app(args=[at_home(word) for word in sys.argv[1:]])  # shells leave the `~` of `--output-dir=~/out`
    except Exception as error:
        if (broken := installation.failed_import(error)) is not None:
            sys.exit(installation.stand_in(sys.argv[1:], broken))
        if not isinstance(error, ValueError | TypeError | OSError | FloatingPointError):
            raise
        typer.secho(f"hf-transfer: {' '.join(str(error).split())}", err=True, fg="red")
        sys.exit(2)


def _show(metrics: dict) -> None:
    from accelerate import PartialState

    if PartialState().is_main_process:
        typer.echo(json.dumps(metrics, indent=2))


@app.command(context_settings=OWN_ARGUMENTS)
def pretrain(
    context: typer.Context, explain: Annotated[bool, typer.Option(help="List the arguments.")] = False
) -> None:
    """Pre-train a model: `[CONFIG.yaml] [--key value ...]`; any TrainingArguments field is a key too."""
    from hf_transfer.runs.adapt import run_pretraining

    _run(run_pretraining, context.args, explain)


@app.command(context_settings=OWN_ARGUMENTS)
def adapt(
    context: typer.Context,
    from_ranking: Annotated[
        Path | None, typer.Option(help="Start from the best model of this saved ranking, whatever CONFIG.yaml names.")
    ] = None,
    combine: Annotated[
        str | None,
        typer.Option(
            help="With --from-ranking, draw on its best models: b_tuning, zoo_tuning, hub_pathway, knowledge_flow or "
            "feature_distillation."
        ),
    ] = None,
    top: Annotated[int | None, typer.Option(min=2, help="How many of them, with --combine; 3 when left out.")] = None,
    explain: Annotated[bool, typer.Option(help="List the arguments.")] = False,
) -> None:
    """Adapt a model to a task, or with `--target_dataset` to a domain: `[CONFIG.yaml] [--key value ...]`.

    With a target every batch is half source and half target: `--per_device_train_batch_size 16` is 8 + 8. Without
    objectives the target's half is left out: source only.
    """
    from hf_transfer.runs.adapt import run_adaptation

    fixed, change = {}, None
    if combine is not None and from_ranking is None:
        raise ValueError("`--combine` draws on the models of a ranking: give `--from-ranking FOLDER` too.")
    if top is not None and combine is None:
        raise ValueError("`--top` says how many models are combined: give `--combine METHOD` too, or leave it out.")
    if from_ranking is not None:
        from hf_transfer.models.revisions import pinned
        from hf_transfer.ranking import Ranking
        from hf_transfer.runs.combine import combined

        ranking = Ranking.load(from_ranking)
        for sentence in ranking.advice_for_adapting():
            typer.echo(sentence, err=True)
        best = pinned(ranking.best.model, ranking.best.revision)
        fixed = {"model": best, "architecture": None, "from_ranking": str(from_ranking)}
        if combine is not None:
            change = partial(combined, method=combine, ranking=str(from_ranking), top=top or 3)
    _run(run_adaptation, context.args, explain, change, **fixed)


def _run(run, argv: list[str], explain: bool, change: Callable | None = None, **fixed) -> None:
    from rich.console import Console
    from rich.table import Table

    from hf_transfer.runs.arguments import argument_help, parse_arguments

    if explain:
        table = Table("argument", "default", "meaning")
        table.columns[0].no_wrap = True
        for row in argument_help():
            table.add_row(*row)
        Console().print(table)
        typer.echo("Every field of transformers.TrainingArguments is an argument too.")
        return
    arguments = parse_arguments(argv, **fixed)
    arguments = arguments if change is None else change(arguments)
    try:
        _show(run(arguments))
    except KeyboardInterrupt:
        from hf_transfer.runs.report import tell_interruption

        tell_interruption(arguments.config.output_dir, ["hf-transfer", *sys.argv[1:]])
        raise typer.Exit(130) from None


@app.command(cls=Command)
def rank(
    dataset: Annotated[str, typer.Option(help="Bundled name, Hub id, folder or file.")],
    models: Annotated[
        list[str] | None, typer.Argument(help="Local folders, Hub ids, and text files with one of these a line.")
    ] = None,
    split: Annotated[str | None, typer.Option(help="Which split of it.")] = None,
    filter: Annotated[list[str] | None, typer.Option(help="Ask the Hub: a tag that models have.")] = None,
    author: Annotated[str | None, typer.Option(help="Ask the Hub: whose models.")] = None,
    search: Annotated[str | None, typer.Option(help="Ask the Hub: a part of the names.")] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many from the Hub, most downloaded first.")] = 20,
    score: Annotated[
        list[str] | None,
        typer.Option(help="Transferability score; the first of several orders. [default: logme, knn, linear_probe]"),
    ] = None,
    layers: Annotated[str, typer.Option(help='"all", "best", "last", or numbers such as "-1,-2".')] = "all",
    pooling: Annotated[str, typer.Option(help='"mean", "cls", "last" or "max" over the tokens.')] = "mean",
    label_column: Annotated[
        list[str] | None,
        typer.Option(help="Where the name leaves a doubt; several times for columns of 0 and 1 each."),
    ] = None,
    problem_type: Annotated[
        str | None,
        typer.Option(help="Where whole numbers leave a doubt: regression, or single_label_classification."),
    ] = None,
    input_column: Annotated[
        list[str] | None,
        typer.Option("--input-column", "--text-column", "--text-columns", help="Where the names leave a doubt."),
    ] = None,
    forecasting: Annotated[
        str | None,
        typer.Option(help="Rows are steps of series: rank on windows, '{context_length: 96, prediction_length: 24}'."),
    ] = None,
    batch_size: Annotated[str, typer.Option(help='Rows at once, or "auto"; halved when memory runs out.')] = "auto",
    max_length: Annotated[int | None, typer.Option(min=1, help="Cut text after so many tokens.")] = None,
    max_samples: Annotated[int | None, typer.Option(help="Rank on at most so many rows.")] = None,
    max_params: Annotated[int | None, typer.Option(help="Skip models with more parameters.")] = None,
    random_baseline: Annotated[bool, typer.Option(help="Add random weights of each architecture.")] = False,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with a model.")] = False,
    allow_pickle: Annotated[bool, typer.Option(help="Load pickled weights, which run code too.")] = False,
    cache_dir: Annotated[str | None, typer.Option(help="Where models from the Hub are kept.")] = None,
    free_disk: Annotated[bool, typer.Option(help="Remove each model after use, if it was not there before.")] = False,
    seed: Annotated[int, typer.Option(help="Draws the rows when there are more than max_samples.")] = 0,
    parallel: Annotated[
        str, typer.Option(help='What several processes share: "data", "models", or by their numbers, "auto".')
    ] = "auto",
    output_dir: Annotated[Path | None, typer.Option(help="Keep finished rows, table, JSON and chart here.")] = None,
    resume: Annotated[bool, typer.Option(help="Go on with the ranking in output_dir.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Start over in output_dir.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="The whole ranking as JSON, and no tables.")] = False,
) -> None:
    """Rank models for a dataset without fine-tuning any."""
    # Options are keywords of `run_ranking` by the same names.
    options = {name: value for name, value in locals().items() if name != "as_json"}
    from accelerate import PartialState

    from hf_transfer.models.short_names import packaged_name
    from hf_transfer.ranking.ranking import NothingScoredError
    from hf_transfer.runs.rank import run_ranking
    from hf_transfer.runs.values import read_label_column, read_mapping, read_names

    options["forecasting"] = None if forecasting is None else read_mapping(forecasting, "forecasting")
    options["label_column"] = read_label_column(label_column)
    query = {name: options.pop(name) for name in ("filter", "author", "search", "limit")}
    # What is too large is found and shown with that reason, so that `max_params` is no part of the query.
    options |= {"models": models or [], "layers": _numbers(layers)}
    options["query"] = query if filter or author or search else None
    if not score:
        del options["score"]
    options["input_columns"] = list(read_names(options.pop("input_column"))) or None
    options["batch_size"] = int(batch_size) if batch_size.isdigit() else batch_size
    try:
        ranking = run_ranking(progress=not as_json, **options)
    except NothingScoredError as error:
        error.ranking.print()
        raise ValueError("no model could be scored; the reasons are above.") from error
    except KeyboardInterrupt:
        kept = f" Finished rows are in {output_dir}: the same command with --resume goes on." if output_dir else ""
        typer.echo(f"Stopped.{kept}", err=True)
        raise typer.Exit(130) from None
    if not PartialState().is_main_process:
        return
    if as_json:
        typer.echo(ranking.to_json())
        return
    ranking = ranking.renamed({row.model: packaged_name(row.model) for row in ranking.rows})
    ranking.print()
    if output_dir is not None:
        typer.echo(f"Saved to {output_dir}.")
    if ranking.candidates:
        start = ("--model", ranking.best.model) if output_dir is None else ("--from-ranking", output_dir)
        names = read_names(label_column)
        told = {"split": split, "problem_type": problem_type, "forecasting": forecasting}
        told["label_column"] = names[0] if len(names) == 1 else f"[{', '.join(names)}]" if names else None
        further = [word for name, value in told.items() if value is not None for word in (f"--{name}", value)]
        tell_next("hf-transfer", "adapt", *start, "--dataset", dataset, *further)


@app.command()
def choose(
    rankings: Annotated[list[Path], typer.Argument(help="Folders of saved rankings, one for each target.")],
    budget: Annotated[float, typer.Option(help="How much the kept models may cost together.")],
    cost: Annotated[str, typer.Option(help="What a model costs: models (each 1) or parameters.")] = "models",
) -> None:
    """Choose the models to keep for several targets within a budget, and the one that each target starts from."""
    from rich.console import Console
    from rich.table import Table

    from hf_transfer.ranking import Ranking
    from hf_transfer.ranking.budget import budgeted_choice

    choice = budgeted_choice({str(folder): Ranking.load(folder) for folder in rankings}, budget, cost)
    table = Table("target", "starts from", "affinity")
    for target, model in choice.starts.items():
        table.add_row(target, model, f"{choice.affinities[target]:.3f}")
    Console().print(table)
    typer.echo(f"Keep {', '.join(choice.models)}: {choice.cost:.0f} {cost} of {budget:.0f}.")
    first = next(iter(choice.starts.values()))
    tell_next("hf-transfer", "adapt", "--model", first, "--dataset", "LABELLED_ROWS")


def _numbers(layers: str) -> str | list[int]:
    """Indices of layers, or the word as it is."""
    try:
        return [int(layer) for layer in layers.split(",")]
    except ValueError:
        return layers


@app.command(cls=Command)
def push(
    folder: Annotated[Path, typer.Argument(help="Model folder with its card.")],
    repo_id: Annotated[str, typer.Argument(help="ORG/NAME on the Hub.")],
    private: Annotated[bool | None, typer.Option(help="Visibility of a new repository.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; main by default.")] = None,
    commit_message: Annotated[str, typer.Option()] = "Upload model with hf_transfer",
    base_model: Annotated[
        str | None, typer.Option(help="Of an adapter: the Hub id of its base, in place of the local folder.")
    ] = None,
    with_code: Annotated[
        bool,
        typer.Option(help="Of a Flowformer: with its source, which `trust_remote_code=True` loads anywhere."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Addresses on the Hub as JSON.")] = False,
) -> None:
    """Publish a model folder on the Hub."""
    from hf_transfer.hub import push_folder

    if with_code:
        from hf_transfer.models.remote_code import add_remote_code

        add_remote_code(folder)
    options = {"private": private, "revision": revision, "base_model": base_model}
    commit = push_folder(folder, repo_id, commit_message=commit_message, **options)
    name = commit.repo_url.repo_id
    if as_json:
        addresses = {"repo_id": name, "commit_url": commit.commit_url, "repo_url": str(commit.repo_url)}
        typer.echo(json.dumps(addresses, indent=2))
        return
    typer.echo(f"Published: {commit.commit_url}")
    tell_next("hf-transfer", "pull", name)


@app.command()
def doctor(checks: Annotated[list[str] | None, typer.Argument(help="Only these checks.")] = None) -> None:
    """Check the installation: packages, the name collision, the Hub, devices, accelerate."""
    raise typer.Exit(installation.main(checks or []))


for command in (evaluate, predict, divergence, compare, card, export, pull, methods):
    app.command(cls=Command)(command)
