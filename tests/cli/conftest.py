"""Commands as a user types them."""

from __future__ import annotations

import sys

import pytest

from hf_transfer.cli import app as cli


@pytest.fixture
def run(monkeypatch, capsys):
    """Types a command; its exit code, output and errors."""

    def call(*words: str) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["hf-transfer", *words])
        capsys.readouterr()
        try:
            cli.main()
            code = 0
        except SystemExit as left:
            code = left.code or 0
        return (code, *capsys.readouterr())

    return call
