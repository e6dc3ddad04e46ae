"""The pictures of a domain adaptation."""

from pathlib import Path

import pytest
from PIL import Image

from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from tests.runs.folders import QUICK

pytestmark = pytest.mark.usefixtures("drawn")

DOMAIN = ["--model", "vit", "--dataset", "digits", "--target_dataset", "more_digits", "--test_rows", "20", *QUICK]
DOMAIN += ["--objectives", "{mcc: {}}", "--logging_steps", "1"]


def adapt(*argv: str) -> dict[str, float]:
    return run_adaptation(parse_arguments([*DOMAIN, *argv]))


@pytest.mark.slow
def test_pictures_lie_in_the_output_folder_and_on_the_card_and_change_no_result(here):
    plain = adapt("--output_dir", "plain")
    assert adapt("--output_dir", "out", "--diagnostics", "true") == plain
    card = Path("out/model/README.md").read_text()
    for name in ("losses", "domains", "confusion"):
        assert Image.open(f"out/figures/{name}.png").size > (100, 100)
        assert f"](plots/{name}.png)" in card and Path(f"out/model/plots/{name}.png").is_file()
    assert not Path("plain/figures").exists()


def test_an_unknown_embedding(here):
    with pytest.raises(ValueError, match=r"`embedding` should be one of \['pca', 'tsne'\], got 'umap'"):
        adapt("--output_dir", "out", "--diagnostics", "true", "--embedding", "umap")
