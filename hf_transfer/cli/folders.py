"""Commands on saved folders: `compare`, `card`, `pull`, `export`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_transfer.cli.command import tell_next

MODEL_FOLDER = Annotated[Path, typer.Argument(help="Folder of a saved model.")]
TASK = Annotated[str | None, typer.Option(help="Kind of head; left out, what the configuration says.")]
OVERWRITE = Annotated[bool, typer.Option(help="Replace what is there.")]


def compare(
    folders: Annotated[list[Path], typer.Argument(help="Output folders of runs; those below them count too.")],
    by: Annotated[str | None, typer.Option(help="Sort by this metric, highest first: accuracy.")] = None,
    output: Annotated[Path | None, typer.Option(help="Write the table too: a .md, .csv or .json file.")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
    overwrite: OVERWRITE = False,
) -> None:
    """Compare finished runs in one table; those that differ in their seed alone are one row, mean ± deviation."""
    from hf_transfer.runs.comparison import FORMATS, as_json_rows, find_runs, rows_of, table_of

    if output is not None and output.suffix not in FORMATS:
        raise ValueError(f"`output` should end in one of {sorted(FORMATS)}, got `{output}`.")
    if output is not None and output.exists() and not overwrite:
        raise FileExistsError(f"`{output}` exists: choose another file, or give --overwrite.")
    rows = rows_of(find_runs(folders), by)
    if as_json:
        typer.echo(json.dumps(as_json_rows(rows), indent=2))
    else:
        _print(*table_of(rows))
        best = rows[0].runs[0]
        push = ("push", best.folder, "ORG/NAME")
        tell_next("hf-transfer", *(push if by else ("compare", *folders, "--by", next(iter(best.metrics)))))
    if output is not None:
        output.write_text(FORMATS[output.suffix](rows), encoding="utf-8")
        typer.echo(f"Saved: {output}.", err=True)


def _print(columns: list[str], rows: list[list[str]]) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None)
    for place, column in enumerate(columns):
        table.add_column(column, justify="left" if place < 2 else "right", no_wrap=True)
    for row in rows:
        table.add_row(*row)
    console = Console(highlight=False, width=10_000)  # a narrow screen breaks lines, and no figure is lost
    console.width = max(1, console.measure(table).maximum)
    console.print(table)


def card(
    folder: MODEL_FOLDER,
    license: Annotated[str | None, typer.Option(help="Of the model, as the Hub names it: apache-2.0.")] = None,
    language: Annotated[str | None, typer.Option(help="Of its texts: en.")] = None,
    base_model: Annotated[str | None, typer.Option(help="Hub id of the model it was trained from.")] = None,
    summary: Annotated[str | None, typer.Option(help="First sentence of the card.")] = None,
    limitations: Annotated[str | None, typer.Option(help="What it should not be used for.")] = None,
    task: TASK = None,
    overwrite: Annotated[bool, typer.Option(help="Replace a card that was written by hand.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the facts of the card.")] = False,
) -> None:
    """Write a model folder's card again, from what its run kept and these options."""
    from dataclasses import asdict

    from hf_transfer.runs.folder_card import write_folder_card

    given = {"license": license, "language": language, "base_model": base_model}
    given |= {"summary": summary, "limitations": limitations}
    path, facts = write_folder_card(folder, task, overwrite, **given)
    if as_json:
        typer.echo(json.dumps(asdict(facts), indent=2, default=str))
        return
    measured = [[one.dataset, one.split, one.name, f"{one.value:.4f}"] for one in facts.metrics]
    if measured:
        _print(["dataset", "split", "metric", "value"], measured)
    typer.echo(f"Saved: {path}.")
    tell_next("hf-transfer", "push", folder, "ORG/NAME")


def pull(
    model: Annotated[str, typer.Argument(help="ORG/NAME on the Hub.")],
    output_dir: Annotated[Path | None, typer.Option(help="Copy it here; left out, it stays in the cache.")] = None,
    revision: Annotated[str | None, typer.Option(help="Branch, tag or commit; main by default.")] = None,
    cache_dir: Annotated[Path | None, typer.Option(help="Where models from the Hub are kept.")] = None,
    allow_pickle: Annotated[bool, typer.Option(help="Take pickled weights, which run code.")] = False,
    overwrite: OVERWRITE = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Fetch a model from the Hub, every byte compared with the Hub's checksums."""
    import shutil

    from hf_transfer.hub import atomic_folder, check_can_write, pull_model

    if output_dir is not None:
        check_can_write(output_dir, overwrite=overwrite)
    folder = pull_model(model, revision=revision, cache_dir=cache_dir, allow_pickle=allow_pickle)
    if output_dir is not None:
        with atomic_folder(output_dir, overwrite=overwrite) as staging:
            shutil.copytree(folder, staging, dirs_exist_ok=True)  # links of the cache become files
        folder = output_dir
    if as_json:
        typer.echo(json.dumps({"folder": str(folder)}))
        return
    _print(["file", "bytes"], [[path.name, str(path.stat().st_size)] for path in sorted(folder.iterdir())])
    typer.echo(f"Saved: {folder}.")
    tell_next("hf-transfer", "evaluate", folder, "LABELLED_ROWS")


def export(
    folder: MODEL_FOLDER,
    output_dir: Annotated[Path, typer.Option(help="Where to write.")],
    onnx: Annotated[bool, typer.Option(help="ONNX files in place of weights.")] = False,
    task: TASK = None,
    overwrite: OVERWRITE = False,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """Merge an adapter into its base as one ordinary folder, or write ONNX files, checked against the model."""
    from hf_transfer.runs.export import export_folder
    from hf_transfer.runs.onnx_files import inputs_of

    written = export_folder(folder, output_dir, onnx=onnx, task=task, overwrite=overwrite)
    if as_json:
        typer.echo(json.dumps({"folder": str(written)}))
        return
    _print(["file", "bytes"], [[path.name, str(path.stat().st_size)] for path in sorted(written.iterdir())])
    typer.echo(f"Saved: {written}.")
    if onnx:
        typer.echo(
            f"It reads {', '.join(inputs_of(written))}. In Python: `import hf_transfer`, then "
            f"`transformers.exporters.ExportedModel.from_pretrained('{written}')(**inputs)`; any ONNX runtime runs it."
        )
    else:
        tell_next("hf-transfer", "push", written, "ORG/NAME")
