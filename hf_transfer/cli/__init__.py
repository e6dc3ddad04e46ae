"""The command line: `hf-transfer`, or `python -m hf_transfer.cli`. Nothing is imported before a command needs it."""

import sys

from hf_transfer.cli import doctor


def main() -> None:
    """Run the command line on the program's own arguments; where typer is broken, the doctor alone."""
    try:
        from hf_transfer.cli.app import main as run
    except Exception as error:  # a package can break in any way
        if (broken := doctor.failed_import(error)) is None:
            raise
        sys.exit(doctor.stand_in(sys.argv[1:], broken))
    run()
