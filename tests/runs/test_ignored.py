"""What nothing in a run reads is refused before training."""

import pytest

from hf_transfer.runs.adapt import make_adaptation, make_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.ignored import RULES, check_nothing_is_ignored, value_and_default
from tests.runs.folders import QUICK

TASK = ["--model", "vit", "--dataset", "digits", "--output_dir", "out", *QUICK]
DOMAIN = [*TASK, "--target_dataset", "more_digits"]
TEXT = [*TASK, "--model", "bert", "--dataset", "books.csv"]


@pytest.mark.parametrize(
    "words",
    [
        ["--validator", "foo"],
        ["--validator", "entropy"],
        ["--source_holdout", "0.2"],
        ["--target_split", "train"],
        ["--target_options", "{known_digits: 8}"],
        ["--embedding", "tsne"],
        ["--max_length", "8"],
        ["--text_columns", "[text]"],
        ["--tokenizer", "bert"],
        ["--block_size", "8"],
        ["--trajectories", "{context_length: 5}", "--task", "image-classification"],
    ],
    ids=lambda words: words[0][2:],
)
def test_an_argument_that_a_task_run_of_images_does_not_read(here, words):
    with pytest.raises(ValueError, match=f"`{words[0][2:]}` = .* would be ignored: it is for .* Leave it out"):
        make_adaptation(parse_arguments([*TASK, *words]))


@pytest.mark.parametrize(
    "words",
    [
        [*DOMAIN, "--validator", "entropy", "--source_holdout", "0.2"],
        [*DOMAIN, "--diagnostics", "true", "--embedding", "tsne"],
        [*TEXT, "--max_length", "8", "--text_columns", "[text]"],
        TASK,
    ],
)
def test_what_is_read_is_accepted(here, words):
    arguments = parse_arguments(words)
    arguments[0].task = "text-classification" if "bert" in words else "image-classification"
    check_nothing_is_ignored(arguments)


def test_pictures_that_are_not_drawn_have_no_embedding(here):
    with pytest.raises(ValueError, match="`embedding` = 'tsne' would be ignored"):
        make_adaptation(parse_arguments([*DOMAIN, "--embedding", "tsne"]))


def test_pretraining_asks_too(here):
    words = ["--task", "masked-image-modeling", "--validator", "entropy"]
    with pytest.raises(ValueError, match="`validator` = 'entropy' would be ignored"):
        make_pretraining(parse_arguments([*TASK, *words]))


def test_every_rule_is_about_an_argument(here):
    arguments = parse_arguments(TASK)
    for name in RULES:
        value, default = value_and_default(arguments, name)
        assert value == default, name


def test_evaluation_refuses_the_sizes_of_other_tasks(here):
    with pytest.raises(ValueError, match="`block_size` cuts text for text-generation"):
        run_evaluation("vit", "digits", block_size=4)
    with pytest.raises(ValueError, match="`max_length` is not read for text-generation"):
        run_evaluation("gpt2", "books.csv", task="text-generation", max_length=4)
