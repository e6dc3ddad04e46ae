"""The front page: short, its links lead somewhere, every family is one click away, and its code runs."""

import re
import shlex
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from transformers import AutoConfig, AutoModelForImageClassification
from typer.main import get_command

from hf_transfer.cli.app import app
from hf_transfer.data import bundled
from hf_transfer.data.bundled import load
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.lifecycle import Lifecycle, Outcome
from hf_transfer.runs.lifecycle.plan import read_plan
from hf_transfer.runs.method_index import FAMILIES
from hf_transfer.runs.values import read_value
from tests.runs.folders import ARCHITECTURE

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
PAGES = [path for path in sorted(ROOT.rglob("README.md")) if "node_modules" not in path.parts]


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[list[str]]:
    lines = [line for block in blocks("bash") for line in block.replace("\\\n", " ").splitlines()]
    return [words[1:] for words in (shlex.split(line, comments=True) for line in lines) if words[:1] == [program]]


def test_the_front_page_is_short_and_starts_with_code():
    assert len(README.splitlines()) <= 150
    assert "```" in "\n".join(README.splitlines()[:15])


def test_the_test_command_is_where_the_check_looks_for_it():
    found = re.findall(r"^[ 0-9.]*`(python -m pip install.*python -m pytest)`.*$", README, re.MULTILINE)
    assert len(found) == 1


@pytest.mark.parametrize("page", PAGES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\((?!https?:)([^)]+)\)", text):
        path, _, anchor = link.partition("#")
        target = page.parent / path if path else page
        assert target.exists(), f"{page}: {link}"
        if anchor:
            titles = re.findall(r"^#+ (.*)$", target.read_text(encoding="utf-8"), re.MULTILINE)
            assert anchor in [re.sub(r"[^\w -]", "", title).lower().replace(" ", "-") for title in titles], link


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_is_one_click_away(family):
    assert f"](hf_transfer/{family}/README.md)" in README


def test_the_commands_exist_and_take_these_options():
    program = get_command(app)
    shown = commands("hf-transfer")
    assert {"rank", "adapt", "evaluate", "predict", "push"} <= {words[0] for words in shown}
    for name, *words in shown:
        command = program.commands[name]
        context = command.make_context(name, list(words), resilient_parsing=False)
        if name == "adapt" and "--from-ranking" not in words:
            parse_arguments(context.args)


def test_the_python_code_runs(tmp_path, monkeypatch):
    """The code as it is printed, on two candidates of random weights, on few rows and for two steps."""
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    config = AutoConfig.for_model(**{**ARCHITECTURE, "image_size": 32, "patch_size": 16}, num_labels=10)
    for name in ("digits", "odd_even"):
        AutoModelForImageClassification.from_config(config).save_pretrained(f"quickstart/zoo/{name}")
    (code,) = [block for block in blocks("python") if "rank_models" in block]
    monkeypatch.setattr(bundled, "load", lambda name: load(name).shuffle(seed=0).select(range(300)))
    short = code.replace("max_steps=300", "max_steps=2, report_to=[]").replace("batch_size=128", "batch_size=8")
    short = short.replace("test_rows=500", "test_rows=50")
    assert short.count("max_steps=2") == short.count("test_rows=50") == 1
    exec(compile(short, "README.md", "exec"), {})
    assert AutoModelForImageClassification.from_pretrained("outputs/model").config.num_labels == 10


def test_the_plan_can_be_read(tmp_path, monkeypatch):
    (plan,) = blocks("yaml")
    read = read_plan(read_value(plan, "README.md"))
    assert read.seeds == 3 and len(read.task.methods) == 3 and len(read.domain.methods) == 2


def test_the_lifecycle_in_python_is_called_so(monkeypatch, capsys):
    monkeypatch.setattr(Lifecycle, "run", lambda self: SimpleNamespace(verdict=lambda: "verdict", folder="out"))
    (code,) = [block for block in blocks("python") if "Lifecycle" in block]
    exec(compile(code, "README.md", "exec"), {})
    assert capsys.readouterr().out == "verdict out\n"
    assert callable(Outcome.verdict) and "folder" in Outcome.__annotations__
