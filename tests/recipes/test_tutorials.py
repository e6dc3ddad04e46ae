"""Every code block of the tutorials runs as it is printed: on tiny models of the same names, for two steps."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import pytest
import yaml
from datasets import Dataset
from typer.testing import CliRunner

from hf_transfer import Lifecycle
from hf_transfer.cli.app import app
from hf_transfer.data import bundled
from hf_transfer.tasks import TASKS
from hf_transfer.training.objectives import REGISTRY
from tests.runs.folders import BOOKS, digits
from tests.tiny import SENTENCES

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "recipes" / "tutorials"
PAGES = sorted(path.stem for path in FOLDER.glob("*.md") if path.stem != "README")
MODELS = {
    "all-minilm": "bert",
    "ORG/OTHER": "gpt2",
    "google/vit-base-patch16-224": "three",
    "digit_reader": "vit",
    "recipes": ROOT / "recipes",
}
BLOCK = re.compile(r"^```(bash|python|yaml)(?: title=\"(.*?)\")?\n(.*?)^```", re.MULTILINE | re.DOTALL)
STEPS = re.compile(r"(max_steps(?:=|: | |\": ))200\b")


@pytest.fixture
def desk(here, hub, monkeypatch):
    """A working directory with the files that the pages name; models of the Hub are folders of the same names."""
    for name, kind in MODELS.items():
        Path(name).parent.mkdir(exist_ok=True)
        Path(name).symlink_to(here / kind if isinstance(kind, str) else kind)
    hub.add_folder("lab/minilm-tiny", here / "bert")
    texts, names = zip(*((text, BOOKS[book]) for text, book in SENTENCES))
    for file, start in (("reviews.csv", 0), ("labelled_new.csv", 0), ("new_reviews.csv", 4)):
        rows = {"text": texts[start:], **({"label": names} if start == 0 else {})}
        Dataset.from_dict(rows).to_csv(file, index=False)
    Dataset.from_dict({"title": names, "body": texts, "label": names}).to_csv("titled.csv", index=False)
    for row in range(60):
        label = int(digits()[row]["label"]) % 2
        Path("pictures", ("cat", "dog")[label]).mkdir(parents=True, exist_ok=True)
        digits()[row]["image"].save(Path("pictures", ("cat", "dog")[label], f"{row}.png"))
    real = bundled.load
    few = {"mnist5k": range(40), "optical_digits": range(40, 80)}
    monkeypatch.setattr(
        bundled,
        "load",
        lambda name, *rest, **more: digits().select(few[name]) if name in few else real(name, *rest, **more),
    )
    monkeypatch.syspath_prepend(str(here))
    registered = dict(REGISTRY), dict(TASKS)
    yield here
    for registry, before in zip((REGISTRY, TASKS), registered):
        registry.clear()
        registry.update(before)


def run_shell(block: str) -> None:
    """Every command of a block, typed into this process."""
    for line in block.replace("\\\n", " ").splitlines():
        words = shlex.split(line, comments=True)
        if words[:2] == ["accelerate", "launch"]:
            assert Path(words[words.index("--config_file") + 1]).is_file()
            words = ["hf-transfer", *words[words.index("hf_transfer.cli") + 1 :]]
        assert words[0] == "hf-transfer", line
        done = CliRunner().invoke(app, words[1:], catch_exceptions=False)
        assert done.exit_code == 0, f"{line}\n{done.output}"


@pytest.mark.slow
@pytest.mark.parametrize("page", PAGES)
def test_every_block_of_a_page_runs(page, desk):
    names: dict = {"__name__": "tutorial"}
    found = BLOCK.findall((FOLDER / f"{page}.md").read_text(encoding="utf-8"))
    assert any(kind == "python" for kind, _, _ in found)
    for kind, file, block in found:
        block = STEPS.sub(r"\g<1>2", block)
        if file:
            Path(file).write_text(block)
        if kind == "bash":
            run_shell(block)
        elif kind == "yaml":
            assert Lifecycle(yaml.safe_load(block), quiet=True).run().folder.is_dir()
        else:
            exec(compile(block, f"{page}.md", "exec"), names)


def test_the_index_and_the_site_name_every_page():
    index = (FOLDER / "README.md").read_text(encoding="utf-8")
    site = (ROOT / ".ci" / "site" / "pages.py").read_text(encoding="utf-8")
    assert all(f"]({page}.md)" in index and f'"{page}"' in site for page in PAGES)
