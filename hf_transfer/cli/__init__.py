"""The command line: `hf-transfer`, or `python -m hf_transfer.cli`. Nothing is imported before a command needs it."""


def main() -> None:
    """Run the command line on the program's own arguments."""
    from hf_transfer.cli.app import main as run

    run()
