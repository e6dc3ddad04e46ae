"""The recipes that make a Flowformer by name: shortened, each ends in a folder that a fresh process loads by it."""

import subprocess
import sys
from pathlib import Path

import pytest
from transformers import AutoModel

from hf_transfer.runs.adapt import run_pretraining
from hf_transfer.runs.arguments import parse_arguments, read_yaml
from hf_transfer.runs.ignored import check_nothing_is_ignored
from hf_transfer.runs.task import with_task

RECIPES = Path(__file__).parents[2] / "recipes" / "pretraining"
SHORT = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--use_cpu", "--eval_steps", "2"]
TEXT = [*SHORT, "--dataset", "books.csv", "--text_columns", "[text]", "--test_rows", "4", "--block_size", "16"]
TEXT += ["--transfer_probes", "{books: books.csv}", "--test_split", "null"]
IMAGES = [*SHORT, "--dataset", "digits", "--test_rows", "16", "--transfer_probes", "{digits: more_digits}"]
LOADING = """
import hf_transfer, sys
from transformers import AutoImageProcessor, AutoModel, AutoModelForCausalLM, AutoTokenizer
model = AutoModel.from_pretrained("flowformer-tiny")
assert model.config.hidden_size == 128
assert len(AutoTokenizer.from_pretrained("flowformer-tiny")) == model.config.vocab_size
assert AutoModelForCausalLM.from_pretrained("flowformer-tiny-clm").config.is_causal
assert AutoModel.from_pretrained("flowformer-tiny-mae").config.modality == "image"
assert AutoImageProcessor.from_pretrained("flowformer-tiny-mae").size["height"] == 28
"""


def pretrain(name: str, words: list[str]):
    return run_pretraining(parse_arguments([str(RECIPES / f"flowformer_{name}.yaml"), *words]))


@pytest.mark.slow
def test_the_folders_load_by_name_in_a_fresh_process(here):
    for name, words in (("tiny_mlm", TEXT), ("tiny_clm", TEXT), ("tiny_mae", IMAGES)):
        found = pretrain(name, words)
        assert found["loss"] > 0 and any("linear_probe" in metric for metric in found)
        card = (found.folder / "README.md").read_text()
        assert f"# {found.folder.name}" in card and "linear_probe" in card and "transfer_probes.png" in card
    assert found.folder == Path("flowformer-tiny-mae")
    done = subprocess.run([sys.executable, "-c", LOADING], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    with pytest.raises(FileExistsError, match="`flowformer-tiny-mae` holds the model of an earlier run"):
        pretrain("tiny_mae", IMAGES)


@pytest.mark.parametrize("file", sorted(RECIPES.glob("flowformer_*.yaml")), ids=lambda file: file.stem)
def test_every_size_has_settings_that_a_run_accepts(file):
    _, size, kind = file.stem.split("_")
    experiment = with_task(parse_arguments([str(file)]), pretraining=True)
    check_nothing_is_ignored(experiment)
    architecture = read_yaml(file)["architecture"]
    suffix = "" if kind == "mlm" else f"-{kind}"
    assert experiment.run.model_folder == f"flowformer-{size}{suffix}"
    assert architecture["hidden_size"] == {"tiny": 128, "small": 384, "base": 768}[size]


@pytest.mark.parametrize(
    ("folder", "message"),
    [("precious", "holds something else than a model"), ("out", "`output_dir` or above it"), (".", "or above it")],
)
def test_a_model_replaces_nothing_else(here, folder, message):
    (here / "precious").mkdir()
    (here / "precious" / "thesis.txt").write_text("years of work")
    with pytest.raises(ValueError, match=message):
        pretrain("tiny_mae", [*IMAGES, "--model_folder", folder, "--output_dir", "out/run", "--overwrite"])
    assert (here / "precious" / "thesis.txt").read_text() == "years of work"


def test_the_model_of_another_folder_is_replaced_when_asked(here):
    first = pretrain("tiny_mae", [*IMAGES, "--model_folder", "mine", "--output_dir", "out"])
    again = pretrain("tiny_mae", [*IMAGES, "--model_folder", "mine", "--output_dir", "out", "--overwrite"])
    assert first.folder == again.folder == Path("mine") and not Path("out/model").exists()
    AutoModel.from_pretrained("mine")
