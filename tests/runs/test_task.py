"""The task that model and data say, where no argument does."""

import json
from pathlib import Path

import pytest
from datasets import Dataset, Features, Image, Value
from transformers import GPT2Config

from hf_transfer.models.flowformer import FlowformerConfig
from hf_transfer.runs.adapt import make_adaptation
from hf_transfer.runs.arguments import ModelArguments, parse_arguments
from hf_transfer.runs.task import find_evaluation_task, find_task, kinds_of_rows, with_task
from tests.runs.folders import ARCHITECTURE, QUICK

TEXT = Dataset.from_dict({"text": ["a", "b"]})
TAGGED = Dataset.from_dict({"tokens": [["a", "b"]], "labels": [[0, 1]]})
LABELLED = Dataset.from_dict({"text": ["a", "b"], "label": [0, 1]})


def not_asked():
    raise AssertionError("the rows were read")


@pytest.mark.parametrize("model, task", [("vit", "image-classification"), ("flow", "image-classification")])
def test_the_model_says_what_it_reads(here, model, task):
    assert find_task(ModelArguments(model=model), not_asked) == task


def test_a_model_of_text_reads_sentences_or_words_as_the_rows_are(here):
    assert find_task(ModelArguments(model="bert"), lambda: LABELLED) == "text-classification"
    assert (
        find_task(ModelArguments(architecture={"model_type": "distilbert"}), lambda: TAGGED) == "token-classification"
    )
    genres = TEXT.add_column("genres", [["x", "y"], ["x"]])
    assert find_task(ModelArguments(model="bert"), lambda: genres) == "text-classification"
    assert find_task(ModelArguments(model="bert"), lambda: TAGGED.remove_columns("labels")) == "token-classification"


@pytest.mark.parametrize(
    "settings, task",
    [
        (ARCHITECTURE, "image-classification"),
        ({"model_type": "flowformer", "modality": "time_series"}, "time-series-classification"),
        ({"model_type": "flowformer", "modality": "trajectory"}, "offline-reinforcement-learning"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_so_does_an_architecture(settings, task):
    assert find_task(ModelArguments(architecture=dict(settings)), not_asked) == task


def test_rows_say_it_where_the_model_does_not(here):
    """The configuration of `nowhere` cannot be read: loading it says so, for the task of the rows."""
    nowhere = ModelArguments(model="nowhere")
    assert find_task(nowhere, lambda: TEXT) == "text-classification"
    numbers = Dataset.from_dict({"x": [1.0], "label": ["word"]})
    with pytest.raises(ValueError, match="there is no folder `nowhere` here, and the Hub gives no configuration"):
        find_task(nowhere, lambda: numbers)
    (here / "empty").mkdir()
    with pytest.raises(ValueError, match="the folder `empty` holds no model"):
        find_task(ModelArguments(model="empty"), lambda: numbers)


@pytest.mark.parametrize(
    "rows, kinds",
    [
        (TEXT, {"text"}),
        (Dataset.from_dict({"label": ["a", "b"], "x": [1, 2]}), set()),
        (
            Dataset.from_dict(
                {"image": [None]},
                Features(
                    {
                        "image": Image(),
                    }
                ),
            ),
            {"image"},
        ),
        (Dataset.from_dict({"past_values": [[[0.0]]]}), {"time_series"}),
        (Dataset.from_dict({"states": [[[0.0]]], "actions": [[[0.0]]]}), {"trajectory"}),
        (Dataset.from_dict({"input_ids": [[1]]}), {"text"}),
        (Dataset.from_dict({"text": ["a"]}, Features({"text": Value("large_string")})), {"text"}),
    ],
)
def test_what_rows_hold(rows, kinds):
    assert kinds_of_rows(rows) == kinds


def test_an_adapter_is_of_its_base(here):
    Path("adapter").mkdir()
    settings = {"peft_type": "LORA", "base_model_name_or_path": str(here / "bert")}
    Path("adapter/adapter_config.json").write_text(json.dumps(settings))
    assert find_task(ModelArguments(model="adapter"), lambda: LABELLED) == "text-classification"


def test_pretraining_without_labels(here):
    def task(model: str, rows: Dataset) -> str:
        return find_task(ModelArguments(model=model), lambda: rows, pretraining=True)

    assert task("vit", Dataset.from_dict({"pixel_values": [[0.0]]})) == "masked-image-modeling"
    assert task("vit", Dataset.from_dict({"pixel_values": [[0.0]], "label": [1]})) == "image-classification"
    GPT2Config(architectures=["GPT2LMHeadModel"]).save_pretrained("causal")
    assert task("causal", TEXT) == "text-generation"
    assert task("bert", LABELLED) == "text-classification"
    with pytest.raises(ValueError, match="fill-mask, text-generation or text2text-generation"):
        task("bert", TEXT)
    FlowformerConfig(architectures=["FlowformerForMaskedLM"]).save_pretrained("masked")
    assert task("masked", TEXT) == "fill-mask"


def test_a_saved_language_model_is_evaluated_as_one(here):
    GPT2Config(architectures=["GPT2LMHeadModel"]).save_pretrained("causal")
    assert find_evaluation_task(ModelArguments(model="causal"), not_asked) == "text-generation"
    assert find_evaluation_task(ModelArguments(model="gpt2"), not_asked) == "text-classification"
    assert find_evaluation_task(ModelArguments(model="bert"), not_asked) == "text-classification"


def test_a_task_that_is_given_stays(here):
    arguments = parse_arguments(["--model", "bert", "--dataset", "books.csv", "--task", "fill-mask"])
    assert with_task(arguments) is arguments


def test_bert_and_a_csv_make_a_text_classification(here):
    words = ["--model", "bert", "--dataset", "books.csv", "--test_rows", "6", "--output_dir", "out", *QUICK]
    trainer, _ = make_adaptation(parse_arguments(words))
    assert type(trainer.adapted_model).__name__ == "BertForSequenceClassification"
