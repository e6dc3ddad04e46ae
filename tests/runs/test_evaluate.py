from shutil import copytree

import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedConfig

from hf_transfer.data.images import with_pixel_values
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import numbered_as_model, run_evaluation
from tests import tiny
from tests.runs.folders import QUICK, digits, save_books, save_image_folder, save_image_model, save_text_model


def named_config(*names: str) -> PreTrainedConfig:
    return PreTrainedConfig(
        id2label=dict(enumerate(names)), label2id={name: place for place, name in enumerate(names)}
    )


@torch.no_grad()
def test_loss_and_accuracy_are_those_of_the_model(here):
    metrics = run_evaluation("vit", "digits", batch_size=30)
    rows = with_pixel_values(digits().select(range(80)), 14, 1)[:]
    logits = AutoModelForImageClassification.from_pretrained("vit")(rows["pixel_values"]).logits
    assert metrics["accuracy"] == pytest.approx((logits.argmax(1) == rows["labels"]).double().mean().item())
    assert metrics["loss"] == pytest.approx(torch.nn.functional.cross_entropy(logits, rows["labels"]).item(), rel=5e-3)


def test_text_is_padded_and_cut_to_what_the_model_reads(here):
    long = {"text": [f"{text} " * 9 for text, _ in tiny.SENTENCES], "label": [book for _, book in tiny.SENTENCES]}
    Dataset.from_dict(long).to_csv("long.csv", index=False)
    whole = run_evaluation("bert", "long.csv", task="text-classification")
    cut = run_evaluation("bert", "long.csv", task="text-classification", max_length=2)
    assert np.isfinite(whole["loss"]) and whole["loss"] != cut["loss"]


def test_a_model_without_a_head_is_refused(here):
    with pytest.raises(ValueError, match="`headless` lacks weights for image-classification.*adapt it first"):
        run_evaluation("headless", "digits")


def test_another_number_of_classes_is_refused(here):
    with pytest.raises(ValueError, match="the evaluation dataset has 10 classes and the model 3"):
        run_evaluation("three", "digits")
    with pytest.raises(ValueError, match=r"labels outside 0\.\.2: \[3\]"):
        Dataset.from_dict({"text": ["Emma"], "label": [3]}).to_csv("more.csv", index=False)
        run_evaluation("bert", "more.csv", task="text-classification")


def test_rows_without_labels_are_refused(here):
    Dataset.from_dict({"text": ["Emma"]}).to_csv("bare.csv", index=False)
    with pytest.raises(ValueError, match="has no label column"):
        run_evaluation("bert", "bare.csv", task="text-classification")


def test_text_for_an_image_model_and_the_other_way_round(here):
    with pytest.raises(ValueError, match=r"columns \['text'\] hold text, and the model's folder has no tokenizer"):
        run_evaluation("vit", "books.csv")
    save_text_model(here / "ten", tiny.bert(num_labels=10))
    with pytest.raises(ValueError, match="column `image` holds images, and a bert model reads none"):
        run_evaluation("ten", "digits", task="text-classification")


def test_named_classes_are_numbered_as_in_the_model(tmp_path):
    rows = Dataset.from_dict({"text": ["a", "b", "c"], "label": ["dog", "cat", "dog"]})
    assert numbered_as_model(rows, named_config("emu", "dog", "cat"))["label"][:] == [1, 2, 1]
    with pytest.raises(ValueError, match=r"the evaluation dataset has 2 classes.*none of the 2 .*\(cat, cow\): dog"):
        numbered_as_model(rows, named_config("cat", "cow"))


def test_numbers_are_taken_as_they_are():
    rows = Dataset.from_dict({"label": [0, 1]})
    assert numbered_as_model(rows, named_config("cat", "cow")) is rows


def test_words_are_refused_for_a_model_without_names(here):
    save_books(here / "words.csv", words=True)
    with pytest.raises(ValueError, match="without the names of its classes, so which of its outputs is `alice`"):
        run_evaluation("bert", "words.csv", task="text-classification")
    digits_in_words = Dataset.from_dict({"text": ["Emma", "Alice"], "label": ["0", "1"]})
    assert numbered_as_model(digits_in_words, PreTrainedConfig(num_labels=2))["label"][:] == [0, 1]


@pytest.fixture
def adapter(here):
    """An adapter that was trained by relative paths on three named classes."""
    save_books(here / "words.csv", words=True)
    lora = ["--peft", "{peft_type: LORA, target_modules: [query]}", "--learning_rate", "0.05", *QUICK]
    words = ["--model", "bert", "--task", "text-classification", "--dataset", "words.csv"]
    run_adaptation(parse_arguments([*words, *lora, "--max_steps", "30", "--output_dir", "out"]))
    return here / "out" / "model"


def test_an_adapter_knows_its_classes_from_every_directory(adapter, tmp_path_factory, monkeypatch, here):
    every = run_evaluation(str(adapter), str(here / "words.csv"), task="text-classification")
    two = Dataset.from_csv(str(here / "words.csv")).filter(lambda row: row["label"] != "alice")
    two.to_csv(here / "two.csv", index=False)
    mean = {"accuracy": 0.0}
    parts = {"two.csv": len(two), "one.csv": len(tiny.SENTENCES) - len(two)}
    Dataset.from_csv(str(here / "words.csv")).filter(lambda row: row["label"] == "alice").to_csv(here / "one.csv")
    monkeypatch.chdir(tmp_path_factory.mktemp("elsewhere"))
    for name, rows in parts.items():
        found = run_evaluation(str(adapter), str(here / name), task="text-classification")["accuracy"]
        mean["accuracy"] += found * rows / len(tiny.SENTENCES)
    assert mean["accuracy"] == pytest.approx(every["accuracy"]) and every["accuracy"] > 0.4
    Dataset.from_dict({"text": ["Emma"], "label": ["dune"]}).to_csv(here / "other.csv", index=False)
    with pytest.raises(ValueError, match="none of the 3 .*: dune"):
        run_evaluation(str(adapter), str(here / "other.csv"), task="text-classification")


def test_the_base_of_an_adapter_is_named_where_it_is_missing(adapter, here):
    config = adapter / "adapter_config.json"
    config.write_text(config.read_text().replace(str((here / "bert").resolve()), "/gone/away"))
    with pytest.raises(ValueError, match="an adapter of `/gone/away`"):
        run_evaluation(str(adapter), "words.csv", task="text-classification")


def test_a_model_with_names_reads_a_folder_without_every_class(here):
    model = tiny.vit(id2label={place: str(place) for place in range(10)}, label2id={str(n): n for n in range(10)})
    save_image_model(here / "named", model)
    save_image_folder(here / "few", range(5, 10))
    digits().select(range(5, 10)).save_to_disk("rows")
    assert run_evaluation("named", "few") == pytest.approx(run_evaluation("named", "rows"))


def test_few_shot_by_the_features_of_a_model_with_other_classes(here):
    settings = {"ways": 4, "shots": 1, "queries": 3, "episodes": 30}
    metrics = run_evaluation("three", "digits", few_shot=settings)
    assert 0.25 < metrics["accuracy"] <= 1.0 and 0 < metrics["interval"] < 0.2
    assert metrics == run_evaluation("three", "digits", few_shot=settings, batch_size=7)
    found = run_evaluation("three", "digits", retrieval=True)
    assert found.keys() == {"map", "rank_1", "rank_5", "rank_10", "queries"} and 0.1 < found["map"] < 1.0
    with pytest.raises(ValueError, match="give one of them"):
        run_evaluation("three", "digits", retrieval=True, few_shot=settings)
    with pytest.raises(ValueError, match=r"`few_shot` has no \['way'\]"):
        run_evaluation("three", "digits", few_shot={"way": 4})


UNREAD = {
    "few_shot": ("text-generation", {}),
    "retrieval": ("text-generation", True),
    "label_column": ("text-generation", "book"),
    "max_length": ("text-generation", 4),
    "block_size": ("text-classification", 4),
    "prompts": ("text-classification", ["a {}"]),
    "forecasting": ("text-classification", {"context_length": 3}),
}


@pytest.mark.parametrize("option", UNREAD)
def test_what_a_task_does_not_read_is_refused(option, here):
    save_books(here / "books.csv")
    task, value = UNREAD[option]
    with pytest.raises(ValueError, match=f"`{option}` .*text-"):
        run_evaluation("bert", "books.csv", task=task, **{option: value})


@pytest.mark.parametrize(
    "problem_type, labels, metrics",
    [
        ("multi_label_classification", [[0, 1, 0], [1, 1, 0]], {"exact_match", "micro_f1", "macro_f1"}),
        ("regression", [[0.5, 1.5, 2.0], [1.0, 0.5, 2.5]], {"mean_squared_error", "mean_absolute_error", "r_squared"}),
    ],
)
def test_several_labels_and_numbers_have_their_own_metrics(here, problem_type, labels, metrics):
    save_text_model(here / "other", tiny.bert(problem_type=problem_type))
    Dataset.from_dict({"text": ["Call me Ishmael.", "Do cats eat bats?"], "label": labels}).to_json("rows.json")
    found = run_evaluation("other", "rows.json", task="text-classification")
    assert found.keys() == {"loss", *metrics} and np.isfinite(list(found.values())).all()


def test_whole_numbers_of_a_regression_are_numbers(here):
    save_text_model(here / "stars", tiny.bert(1, problem_type="regression"))
    Dataset.from_dict({"text": ["Emma", "Alice", "Dinah"], "label": [1, 5, 3]}).to_csv("stars.csv", index=False)
    found = run_evaluation("stars", "stars.csv", task="text-classification")
    assert found["mean_squared_error"] == pytest.approx(found["loss"]) and "accuracy" not in found


@pytest.mark.parametrize("adapter", [[], ["--peft", '{"peft_type": "LORA", "target_modules": ["query", "value"]}']])
def test_texts_are_cut_as_in_the_training(here, adapter):
    """Else the figures of a finished model would not be those of its own run."""
    long = {"text": [f"{text} " * 9 for text, _ in tiny.SENTENCES], "label": [book for _, book in tiny.SENTENCES]}
    Dataset.from_dict(long).to_csv("long.csv", index=False)
    copytree((here / "bert").resolve(), "own")
    rows = ["--model", "own", "--dataset", "long.csv", "--test_dataset", "long.csv", *QUICK, "--learning_rate", "0.02"]
    trained = run_adaptation(
        parse_arguments([*rows, *adapter, "--max_steps", "9", "--max_length", "4", "--output_dir", "cut"])
    )
    again = run_evaluation("cut/model", "long.csv")
    assert again["loss"] == pytest.approx(trained["loss"], rel=3e-6)
    assert run_evaluation("cut/model", "long.csv", max_length=16)["loss"] != pytest.approx(again["loss"], rel=3e-6)


def test_a_new_training_reads_as_far_as_the_model_does(here):
    config = AutoConfig.from_pretrained((here / "bert").resolve(), text_max_length=2)
    copytree((here / "bert").resolve(), "own")
    config.save_pretrained("own")
    rows = ["--model", "own", "--dataset", "books.csv", "--task", "text-classification"]
    run_adaptation(parse_arguments([*rows, *QUICK, "--output_dir", "whole"]))
    assert getattr(AutoConfig.from_pretrained("whole/model"), "text_max_length", None) is None
