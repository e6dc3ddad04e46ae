"""Commands on a saved model and rows: `evaluate`, `predict`, `divergence`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from hf_transfer.cli.command import tell_next

MODEL = Annotated[str, typer.Argument(help="Model folder or Hub id.")]
DATA = Annotated[str | None, typer.Argument(help="Rows: bundled name, Hub id, folder or file.")]
SPLIT = Annotated[str | None, typer.Option(help="Which split of it; test where it has several.")]
TASK = Annotated[str | None, typer.Option(help="Kind of head; left out, what model and data say.")]
BATCH_SIZE = Annotated[int, typer.Option(min=1)]
MAX_LENGTH = Annotated[int | None, typer.Option(min=1, help="Cut text after so many tokens.")]
LABEL_COLUMN = Annotated[
    list[str] | None,
    typer.Option(help="Which column holds the labels; several times for columns of 0 and 1 each."),
]
TEXT_COLUMN = Annotated[
    list[str] | None,
    typer.Option("--text-column", "--text-columns", help="Which one or two columns hold the text."),
]
MAX_SAMPLES = Annotated[int | None, typer.Option(min=1, help="At most so many random rows.")]
SEED = Annotated[int, typer.Option(help="Draws the rows when there are more than max_samples.")]
FORECASTING = Annotated[
    str | None,
    typer.Option(help="Windows of a table of steps: '{context_length: 96, prediction_length: 24}'; as the model's."),
]
OVERWRITE = Annotated[bool, typer.Option(help="Replace what is there.")]
JSON = Annotated[bool, typer.Option("--json", help="Everything that was measured as JSON, and no tables.")]


def rows_named(data: str | None, dataset: str | None) -> str:
    """The rows that a command is given, by the word behind the model or by `--dataset`."""
    if (data is None) == (dataset is None):
        given = "neither is given" if data is None else f"both are given: `{data}` and `{dataset}`"
        raise typer.BadParameter(f"The rows are the word behind the model, or --dataset: {given}.")
    return str(data or dataset)


def evaluate(
    model: MODEL,
    data: DATA = None,
    dataset: Annotated[str | None, typer.Option(help="The same, by name: labelled rows.")] = None,
    split: SPLIT = None,
    task: TASK = None,
    batch_size: BATCH_SIZE = 64,
    max_length: MAX_LENGTH = None,
    block_size: Annotated[int | None, typer.Option(min=2, help="Tokens in a block, for text-generation.")] = None,
    few_shot: Annotated[
        str | None,
        typer.Option(help="Classify by a few rows a class over many episodes: '{ways: 5, shots: 5}', or '{}'."),
    ] = None,
    retrieval: Annotated[
        bool, typer.Option(help="Let rows find others of their class by features: mAP, rank 1, 5 and 10.")
    ] = False,
    converters: Annotated[
        str | None,
        typer.Option(help="Changes of the model: '{tent: {}}' adapts it to the rows while they are read, unlabelled."),
    ] = None,
    label_column: LABEL_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    max_samples: MAX_SAMPLES = None,
    seed: SEED = 0,
    prompt: Annotated[
        list[str] | None,
        typer.Option(help="For an image and a text tower: 'a photo of a {}.', once or several times."),
    ] = None,
    forecasting: FORECASTING = None,
    output: Annotated[Path | None, typer.Option(help="Write everything that was measured to this JSON file.")] = None,
    overwrite: OVERWRITE = False,
    as_json: JSON = False,
) -> None:
    """Measure a model on labelled rows: accuracy and F1, the figures of each class and which was taken for which;
    its perplexity on text (`--task text-generation`); or how well its image and its text tower fit each other."""
    from accelerate import PartialState

    from hf_transfer.runs.evaluate import run_evaluation
    from hf_transfer.runs.report import tell_classes
    from hf_transfer.runs.values import read_label_column, read_mapping, read_names

    if output is not None and output.exists() and not overwrite:
        raise FileExistsError(f"`{output}` exists: choose another --output, or replace it with --overwrite.")
    dataset = rows_named(data, dataset)
    options = {"batch_size": batch_size, "max_length": max_length, "block_size": block_size, "seed": seed}
    options["few_shot"] = None if few_shot is None else read_mapping(few_shot, "few_shot")
    options["retrieval"] = retrieval
    options["converters"] = None if converters is None else read_mapping(converters, "converters")
    options["forecasting"] = None if forecasting is None else read_mapping(forecasting, "forecasting")
    columns = {"label_column": read_label_column(label_column), "text_columns": read_names(text_column)}
    options["max_samples"] = max_samples
    found = run_evaluation(model, dataset, split=split, task=task, prompts=prompt or (), **options, **columns)
    if not PartialState().is_main_process:
        return
    whole = {"model": model, "dataset": dataset, **found.in_full()}
    if output is not None:
        output.parent.mkdir(parents=True, exist_ok=True)
        output.write_text(json.dumps(whole, indent=2) + "\n", encoding="utf-8")
    if as_json:
        typer.echo(json.dumps(whole, indent=2))
        return
    typer.echo(f"{found.task}, {found.rows} rows of {dataset}", err=True)
    tell_classes(found.per_class, found.confusion)
    typer.echo(json.dumps(found, indent=2))
    if output is not None:
        typer.echo(f"Saved: {output}.", err=True)
    tell_next("hf-transfer", "predict", model, "ROWS_WITHOUT_LABELS")


def predict(
    model: MODEL,
    data: DATA = None,
    dataset: Annotated[str | None, typer.Option(help="The same, by name: rows whose labels are not read.")] = None,
    output: Annotated[Path, typer.Option(help="A .csv, .jsonl, .json or .parquet file.")] = Path("predictions.csv"),
    split: SPLIT = None,
    task: TASK = None,
    label_column: Annotated[
        list[str] | None, typer.Option(help="A column that holds labels, and is not read; once or several times.")
    ] = None,
    text_column: TEXT_COLUMN = None,
    max_samples: MAX_SAMPLES = None,
    seed: SEED = 0,
    all_probabilities: Annotated[bool, typer.Option(help="Of every class, not of the predicted one alone.")] = False,
    batch_size: BATCH_SIZE = 64,
    max_length: MAX_LENGTH = None,
    forecasting: FORECASTING = None,
    classes: Annotated[
        list[str] | None,
        typer.Option("--class", "--classes", help="A name of a class, for an image and a text tower that has none."),
    ] = None,
    overwrite: OVERWRITE = False,
    as_json: Annotated[bool, typer.Option("--json", help="How often each class was predicted, as JSON.")] = False,
) -> None:
    """Predict rows without labels, into a file: class and probability, several labels, or numbers."""
    # Options are keywords of `predict_rows` by the same names.
    own = ("data", "output", "overwrite", "as_json")
    options = {name: value for name, value in locals().items() if name not in own and name != "own"}
    options["dataset"] = rows_named(data, dataset)
    from collections import Counter

    from hf_transfer.runs.predict import check_output, predict_rows, save_predictions
    from hf_transfer.runs.values import read_label_column, read_mapping, read_names

    options["forecasting"] = None if forecasting is None else read_mapping(forecasting, "forecasting")
    check_output(output, overwrite)
    options["label_column"] = read_label_column(label_column)
    options["text_columns"] = read_names(options.pop("text_column"))
    options["classes"] = read_names(classes)
    found = predict_rows(pictures=None if overwrite else output.with_suffix(""), **options)
    save_predictions(found, output, overwrite)
    answers = found.columns.get("prediction", [])
    counts = Counter(answers).most_common() if answers and isinstance(answers[0], str) else []
    if as_json:
        typer.echo(json.dumps({"rows": found.rows, "output": str(output), "predicted": dict(counts)}))
        return
    for name, rows in counts[:30]:
        typer.echo(f"  {name}: {rows}", err=True)
    typer.echo(f"Saved {found.rows} predictions to {output}.")
    tell_next("hf-transfer", "evaluate", model, "LABELLED_ROWS")


def divergence(
    model: MODEL,
    source: Annotated[str, typer.Option(help="Bundled name, Hub id, folder or file; labels tell more.")],
    target: Annotated[str, typer.Option(help="Likewise.")],
    source_split: Annotated[str | None, typer.Option(help="Which split of it.")] = None,
    target_split: Annotated[str | None, typer.Option(help="Which split of it.")] = None,
    task: TASK = None,
    splits: Annotated[int, typer.Option(min=1, help="Random halves to average over.")] = 5,
    slack: Annotated[float, typer.Option(help="Nats that a localised hypothesis may lose on the source.")] = 0.05,
    max_samples: Annotated[int, typer.Option(min=4, help="At most so many random rows of each.")] = 1000,
    batch_size: BATCH_SIZE = 64,
    max_length: MAX_LENGTH = None,
    label_column: LABEL_COLUMN = None,
    text_column: TEXT_COLUMN = None,
    seed: Annotated[int, typer.Option(help="Of rows, splits and first weights.")] = 0,
    output_dir: Annotated[Path | None, typer.Option(help="Keep the tables here, as Markdown and JSON.")] = None,
    overwrite: OVERWRITE = False,
    as_json: JSON = False,
) -> None:
    """Estimate how far two data sets are apart under a model, and the terms of the bound on the target error."""
    # Options are keywords of `run_divergence` by the same names.
    options = {name: value for name, value in locals().items() if name != "as_json"}
    from hf_transfer.runs.divergence import run_divergence
    from hf_transfer.runs.values import read_label_column, read_names

    options["label_column"] = read_label_column(label_column)
    options["text_columns"] = read_names(options.pop("text_column"))
    report = run_divergence(**options)
    if as_json:
        typer.echo(report.to_json())
        return
    typer.echo(report.to_markdown())
    if output_dir is not None:
        typer.echo(f"Saved to {output_dir}.")
    data = ("--dataset", source, "--target_dataset", target)
    tell_next("hf-transfer", "adapt", "--model", model, *data, "--objectives", "{dann: {}}")
