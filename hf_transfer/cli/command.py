"""How every command reads its words: `[CONFIG.yaml] [words] [--option value ...]`.

Precedence: the command line, then the YAML file, then the default. `--output-dir` and `--output_dir` are one option,
`--x value` and `--x=value` too; a key of the file is the name of an option. An unknown one is refused, with the
nearest.
"""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import Any

import typer
from typer.core import TyperCommand

from hf_transfer.core.registry import nearest

SUFFIXES = (".yaml", ".yml")
STOPPED = 130
"""Exit code of Ctrl-C, as shells have it."""


def tell_next(*words: object) -> None:
    """Print the command that usually follows, ready to be pasted, on the error stream."""
    typer.echo(f"Next:\n  {shlex.join(map(str, words))}", err=True)


class Command(TyperCommand):
    """A command whose options can stand in a YAML file, the first word of its arguments."""

    def make_context(
        self, info_name: str | None, args: list[str], parent: typer.Context | None = None, **extra: Any
    ) -> typer.Context:
        if args and args[0].endswith(SUFFIXES) and Path(args[0]).is_file():
            extra["default_map"] = self.values_of(args[0])
            args = args[1:]
        return super().make_context(info_name, args, parent, **extra)

    def values_of(self, path: str) -> dict[str, Any]:
        """Parameter -> value in a YAML file.

        Raises:
            ValueError: the file is no mapping, or has a key that is no option of this command.
        """
        from hf_transfer.runs.arguments import read_yaml

        names = {option.lstrip("-").replace("-", "_"): one for one in self.params for option in one.opts}
        values = read_yaml(path)
        for key in values:
            if key not in names:
                raise ValueError(
                    f"`{path}`: `hf-transfer {self.name}` has no `{key}`, accepted: {', '.join(sorted(names))}."
                    f"{nearest(key, names)}"
                )
        several = {key for key, one in names.items() if getattr(one, "multiple", False) or one.nargs == -1}
        listed = {key: [value] for key, value in values.items() if key in several and not isinstance(value, list)}
        return {names[key].name: value for key, value in {**values, **listed}.items()}

    def invoke(self, ctx: typer.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt:
            typer.echo("Stopped.", err=True)
            raise typer.Exit(STOPPED) from None
