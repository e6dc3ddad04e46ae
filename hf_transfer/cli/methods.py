"""`hf-transfer methods [NAME]`: every registered method, or one with formula, keywords and a YAML to start from."""

from __future__ import annotations

import json
from typing import Annotated

import typer


def methods(
    name: Annotated[str | None, typer.Argument(help="Show this one: cdan.")] = None,
    family: Annotated[str | None, typer.Option(help="Only those of this family: domain_adaptation.")] = None,
    kind: Annotated[str | None, typer.Option(help="Only objective, converter, schedule, tuner, score ...")] = None,
    as_json: Annotated[bool, typer.Option("--json", help="For scripts.")] = False,
) -> None:
    """List all methods with family and paper, or show one: formula, keywords, defaults and a first YAML file."""
    from hf_transfer.runs.method_index import all_methods, methods_named

    if name is not None:
        from hf_transfer.runs.method_page import page_of

        pages = [page_of(method) for method in methods_named(name)]
        typer.echo(json.dumps(pages, indent=2)) if as_json else [_show(page) for page in pages]
        return
    chosen = [one for one in all_methods() if family in (None, one.family) and kind in (None, one.kind)]
    if not chosen:
        families, kinds = (sorted({getattr(one, what) for one in all_methods()}) for what in ("family", "kind"))
        raise ValueError(f"no method is of family `{family}` and kind `{kind}`; families: {families}, kinds: {kinds}.")
    if as_json:
        typer.echo(json.dumps([one.as_row() for one in chosen], indent=2))
        return
    _list(chosen)


def _list(chosen) -> None:
    from rich.console import Console
    from rich.table import Table

    from hf_transfer.runs.method_index import FAMILIES

    console = Console()
    for family, title in FAMILIES.items():
        rows = [one for one in chosen if one.family == family]
        if not rows:
            continue
        table = Table("name", "kind", "problem types", "paper", title=title, title_justify="left", expand=False)
        table.columns[0].no_wrap = table.columns[3].no_wrap = True
        for one in rows:
            table.add_row(
                one.name, one.kind, ", ".join(_SHORT[task] for task in one.tasks) or "all", _short(one.paper)
            )
        console.print(table)
    console.print(
        f"{len(chosen)} methods. `hf-transfer methods NAME` shows formula, keywords and a YAML to start from."
    )


_SHORT = {
    "single_label_classification": "single-label",
    "multi_label_classification": "multi-label",
    "regression": "regression",
}


def _short(paper: str) -> str:
    for start in ("https://huggingface.co/papers/", "https://doi.org/"):
        if paper.startswith(start):
            return paper.removeprefix(start)
    return paper.removeprefix("https://").partition("/")[0]


def _show(page: dict) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False, markup=False)
    console.print(f"{page['name']} ({page['kind']}, {page['family']}): {page['summary']}\n", soft_wrap=True)
    console.print(f"{page['formula']}\n", soft_wrap=True)
    problems = page["problem_types"]
    console.print(f"problem types: {problems if isinstance(problems, str) else ', '.join(problems)}", soft_wrap=True)
    console.print(f"paper: {page['paper']}", soft_wrap=True)
    console.print(f"code: {page['target']}", soft_wrap=True)
    if page["keywords"]:
        table = Table("keyword", "default", "meaning")
        table.columns[0].no_wrap = True
        for row in page["keywords"]:
            table.add_row(*row.values())
        console.print(table)
    if page["yaml"]:
        console.print(f"# {page['command']}", soft_wrap=True)
        console.print(page["yaml"], soft_wrap=True)
    else:
        console.print(page["command"], soft_wrap=True)
    if page["recipes"]:
        console.print(f"recipe: {page['recipes'][0]}", soft_wrap=True)
