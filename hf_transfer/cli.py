"""The console script `hf-transfer`: every step of the lifecycle by itself.

Nothing of the package but the doctor is imported at the top, so that `hf-transfer doctor` runs when the rest cannot.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Transferability in deep learning: pre-train, rank, adapt, evaluate and publish Hugging Face models.",
)
OWN_ARGUMENTS = {"allow_extra_args": True, "ignore_unknown_options": True}


def main() -> None:
    """Run a command; a mistake in the input is one paragraph, not a traceback."""
    try:
        app()
    except (ValueError, TypeError, OSError) as error:
        typer.secho(f"hf-transfer: {' '.join(str(error).split())}", err=True, fg="red")
        sys.exit(2)


def _show(metrics: dict) -> None:
    typer.echo(json.dumps(metrics, indent=2))


@app.command(context_settings=OWN_ARGUMENTS)
def pretrain(
    context: typer.Context, explain: Annotated[bool, typer.Option(help="List the arguments.")] = False
) -> None:
    """Pre-train a model: [CONFIG.yaml] [--key value ...]; any TrainingArguments field is a key too."""
    from hf_transfer.runs.adapt import run_pretraining

    _run(run_pretraining, context.args, explain)


@app.command(context_settings=OWN_ARGUMENTS)
def adapt(
    context: typer.Context,
    from_ranking: Annotated[
        Path | None, typer.Option(help="Start from the best model of this saved ranking, whatever CONFIG.yaml names.")
    ] = None,
    explain: Annotated[bool, typer.Option(help="List the arguments.")] = False,
) -> None:
    """Adapt a model to a task, or with `--target_dataset` to a domain: [CONFIG.yaml] [--key value ...]."""
    from hf_transfer.runs.adapt import run_adaptation

    fixed = {}
    if from_ranking is not None:
        from hf_transfer.ranking import Ranking

        fixed = {"model": Ranking.load(from_ranking).best.model, "architecture": None}
    _run(run_adaptation, context.args, explain, **fixed)


def _run(run, argv: list[str], explain: bool, **fixed) -> None:
    from rich.console import Console
    from rich.table import Table

    from hf_transfer.runs.arguments import argument_help, parse_arguments

    if explain:
        table = Table("argument", "default", "meaning")
        for row in argument_help():
            table.add_row(*row)
        Console().print(table)
        typer.echo("Every field of transformers.TrainingArguments is an argument too.")
        return
    _show(run(parse_arguments(argv, **fixed)))


@app.command()
def rank(
    models: Annotated[list[str], typer.Argument(help="Local folders and Hub ids.")],
    dataset: Annotated[str, typer.Option(help="Bundled name, Hub id, folder or file.")],
    split: Annotated[str | None, typer.Option(help="Which split of it.")] = None,
    score: Annotated[str, typer.Option(help="Transferability score.")] = "logme",
    layers: Annotated[str, typer.Option(help='"last", "all" or "best".')] = "last",
    pooling: Annotated[str, typer.Option(help='"mean", "cls", "last" or "max" over the tokens.')] = "mean",
    max_samples: Annotated[int | None, typer.Option(help="Rank on at most so many rows.")] = None,
    max_params: Annotated[int | None, typer.Option(help="Skip models with more parameters.")] = None,
    trust_remote_code: Annotated[bool, typer.Option(help="Run code that comes with a model.")] = False,
    seed: Annotated[int, typer.Option(help="Draws the rows when there are more than max_samples.")] = 0,
    output_dir: Annotated[Path | None, typer.Option(help="Save table, JSON and chart here.")] = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a ranking in output_dir.")] = False,
) -> None:
    """Rank models for a dataset without fine-tuning any."""
    from hf_transfer.data.bundled import load
    from hf_transfer.hub import check_can_write
    from hf_transfer.ranking import rank_models

    if output_dir is not None:
        check_can_write(output_dir, overwrite=overwrite)
    ranking = rank_models(
        models,
        load(dataset, split),
        score=score,
        layers=layers,
        pooling=pooling,
        max_samples=max_samples,
        max_params=max_params,
        trust_remote_code=trust_remote_code,
        seed=seed,
    )
    ranking.print()
    if not ranking.scored:
        raise ValueError("no model could be scored; the reasons are above.")
    if output_dir is not None:
        typer.echo(f"Saved to {ranking.save(output_dir)}.")


@app.command()
def evaluate(
    model: Annotated[str, typer.Argument(help="Model folder or Hub id.")],
    dataset: Annotated[str, typer.Option(help="Labelled rows: bundled name, Hub id, folder or file.")],
    split: Annotated[str | None, typer.Option(help="Which split of it.")] = None,
    task: Annotated[str, typer.Option(help="Kind of head.")] = "image-classification",
    batch_size: Annotated[int, typer.Option(min=1)] = 64,
    max_length: Annotated[int | None, typer.Option(help="Cut text after so many tokens.")] = None,
) -> None:
    """Measure a model's accuracy on labelled rows."""
    from hf_transfer.runs.evaluate import run_evaluation

    _show(run_evaluation(model, dataset, split=split, task=task, batch_size=batch_size, max_length=max_length))


@app.command()
def push(
    folder: Annotated[Path, typer.Argument(help="Model folder with its card.")],
    repo_id: Annotated[str, typer.Argument(help="ORG/NAME on the Hub.")],
    private: Annotated[bool | None, typer.Option(help="Visibility of a new repository.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch; main by default.")] = None,
    commit_message: Annotated[str, typer.Option()] = "Upload model with hf_transfer",
) -> None:
    """Publish a model folder on the Hub."""
    from hf_transfer.hub import push_folder

    commit = push_folder(folder, repo_id, private=private, revision=revision, commit_message=commit_message)
    typer.echo(f"Published: {commit.commit_url}")


@app.command()
def doctor(checks: Annotated[list[str] | None, typer.Argument(help="Only these checks.")] = None) -> None:
    """Check the installation: packages, the name collision, the Hub, devices, accelerate."""
    from hf_transfer.doctor import main as run

    raise typer.Exit(run(checks or []))


if __name__ == "__main__":
    main()
