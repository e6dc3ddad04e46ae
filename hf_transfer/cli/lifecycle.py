"""`hf-transfer run`: a plan, from a file or from a few options, carried out or gone on with."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any

import typer


def run(
    context: typer.Context,
    plan: Annotated[Path | None, typer.Argument(help="The plan, a YAML file; see recipes/lifecycle.")] = None,
    train: Annotated[str | None, typer.Option(help="Labelled rows: bundled name, Hub id, folder or file.")] = None,
    target: Annotated[str | None, typer.Option(help="Unlabelled rows of the domain to adapt to.")] = None,
    test: Annotated[str | None, typer.Option(help="Labelled rows to measure on, which nothing is chosen by.")] = None,
    model: Annotated[list[str] | None, typer.Option(help="A candidate; once or several times.")] = None,
    output_dir: Annotated[str | None, typer.Option(help="Where everything goes.")] = None,
    dry_run: Annotated[bool, typer.Option(help="Show what would be done and its cost; train nothing.")] = False,
    resume: Annotated[bool, typer.Option(help="Go on in the output folder, as is done without it too.")] = False,
    overwrite: Annotated[bool, typer.Option(help="Remove what an earlier run of a plan left there.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the report's figures as JSON.")] = False,
) -> None:
    """Carry out a plan: rank models, adapt them, choose, report and publish. The same command again goes on.

    Options win over the plan; any key of it can be given as `--section.key value`, such as `--budget.seeds 3`.
    Sections and their keys: data (train, target, source, test, validation, labels_per_class, ...), candidates,
    pretrain, rank (top, start, check, score, ...), task, domain and combine (methods, search, training), publish,
    budget (minutes, memory, seeds, seed), training; recipes/lifecycle/README.md tells them all.
    """
    from hf_transfer.runs.lifecycle import Lifecycle
    from hf_transfer.runs.models import without_loading_report

    if resume and overwrite:
        raise ValueError("`resume` keeps what is in the output folder and `overwrite` removes it: give one of them.")
    named = {"data.train": train, "data.target": target, "data.test": test, "publish.output_dir": output_dir}
    named["candidates"] = list(model) if model else None
    # where PLAN is left out, the first key of the plan takes its place
    words = ([str(plan)] if plan is not None else []) + context.args
    path = Path(words.pop(0)) if words and not words[0].startswith("--") else None
    given = plan_of(path, {name: value for name, value in named.items() if value is not None}, words)
    lifecycle = Lifecycle(given, quiet=as_json)
    try:
        with without_loading_report():
            if dry_run:
                estimate = lifecycle.dry_run()
                typer.echo(json.dumps(estimate.to_dict(), indent=2) if as_json else estimate.in_words())
                return
            outcome = lifecycle.run(overwrite=overwrite)
    except KeyboardInterrupt:
        words = " ".join(["hf-transfer", *(word for word in sys.argv[1:] if word != "--overwrite")])
        typer.echo(f"\nStopped. What is finished is kept; go on with: {words}", err=True)
        raise typer.Exit(130) from None
    if outcome.is_main_process:
        typer.echo(json.dumps(outcome.to_dict(), indent=2) if as_json else outcome.closing())


def plan_of(path: Path | None, named: dict[str, Any], argv: list[str]) -> dict[str, Any]:
    """The plan of a file with the values that the command line gives, which count more."""
    from hf_transfer.runs.arguments import read_overrides, read_yaml
    from hf_transfer.runs.lifecycle.plan import LISTS, SECTIONS, mapping

    given = read_yaml(path) if path is not None else {}
    for name, value in {**read_overrides(argv), **named}.items():
        section, *keys = name.split(".", 2)
        if not keys and section not in LISTS:
            found = [f"`--{one}.{section}`" for one, keys in SECTIONS.items() if section in keys]
            meant = f": did you mean {' or '.join(found)}?" if found else "."
            raise ValueError(f"`--{name}` is no option; a key of the plan is given as `--section.key value`{meant}")
        if not keys:
            given[section] = value
            continue
        inner = given[section] = dict(mapping(given.get(section), section))
        for key in keys[:-1]:
            inner[key] = dict(mapping(inner.get(key), f"{section}.{key}"))
            inner = inner[key]
        inner[keys[-1]] = value
    return given
