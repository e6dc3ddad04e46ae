"""A directory with tiny models and data that every test of the runs starts in."""

from pathlib import Path

import pytest

from tests import tiny
from tests.runs import folders


@pytest.fixture(scope="session")
def workshop(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Models `vit`, `flow` (both of 10 classes), `three` (a ViT of 3 classes), `headless`, `bert` and `gpt2`; data
    `digits`, `more_digits` and `books.csv`. Not to be written to.
    """
    root = tmp_path_factory.mktemp("workshop")
    folders.save_image_model(root / "vit", tiny.vit(), seed=0)
    folders.save_image_model(root / "flow", tiny.flowformer(), seed=1)
    folders.save_image_model(root / "three", tiny.vit(num_labels=3), seed=2)
    folders.save_image_model(root / "headless", tiny.vit().vit)
    folders.save_text_model(root / "bert", tiny.bert())
    folders.save_text_model(root / "gpt2", tiny.gpt2())
    folders.save_digits(root / "digits", 0, 80)
    folders.save_digits(root / "more_digits", 80, 130)
    folders.save_books(root / "books.csv")
    return root


@pytest.fixture
def here(workshop: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty working directory in which the workshop's folders have their bare names."""
    for item in workshop.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    return tmp_path
