"""Tagging from a file to a saved folder: task and domain adaptation, ranking, evaluation, prediction, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from datasets import Dataset
from huggingface_hub import ModelCard
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers
from transformers import AutoModelForTokenClassification, EvalPrediction, PreTrainedTokenizerFast, pipeline

from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.rank import run_ranking
from hf_transfer.runs.saving import read_results
from hf_transfer.tasks import task_named
from tests import tiny
from tests.runs.folders import QUICK, save_text_model

NAMES = {"Alice", "Dinah", "Ishmael", "Moby", "Taylor"}
SETTINGS = [*QUICK, "--learning_rate", "1e-2"]
METRICS = {"entity_f1", "entity_precision", "entity_recall", "accuracy", "macro_f1", "loss"}
TASK = task_named("token-classification")


def sentences(first: int = 0, last: int = 24) -> dict[str, list]:
    words = [text.replace(".", " .").replace(",", " ,").split() for text, _ in tiny.SENTENCES[first:last]]
    return {"tokens": words, "ner_tags": [["B-PER" if word in NAMES else "O" for word in row] for row in words]}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a tiny tagger's backbone and files of words and tags."""
    monkeypatch.chdir(tmp_path)
    save_text_model(tmp_path / "bert", tiny.bert())
    Dataset.from_dict(sentences()).to_json("words.json")
    Dataset.from_dict(sentences(8)).remove_columns("ner_tags").to_json("unlabelled.json")
    with Path("words.csv").open("w", newline="") as file:
        rows = sentences().values()
        csv.writer(file).writerows([["sentence", "tags"], *([" ".join(w), " ".join(t)] for w, t in zip(*rows))])
    lines = ["\n".join(f"{w}\t{t}" for w, t in zip(*row)) for row in zip(*sentences().values())]
    Path("words.conll").write_text("\n\n".join(lines) + "\n")
    return tmp_path


def adapt(*argv: str) -> dict:
    return run_adaptation(parse_arguments(["--model", "bert", *SETTINGS, *argv]))


def test_from_a_file_to_a_saved_folder(place):
    metrics = adapt("--dataset", "words.json", "--test_rows", "8", "--output_dir", "out")
    assert metrics.keys() == METRICS == read_results("out/model").keys()
    model = AutoModelForTokenClassification.from_pretrained("out/model")
    assert model.config.id2label == {0: "B-PER", 1: "O"}
    card = ModelCard.load("out/model/README.md")
    assert card.data.pipeline_tag == "token-classification" and "| B-PER |" in card.text
    measured = run_evaluation("out/model", "words.json")
    assert measured.keys() == METRICS
    told = pipeline("token-classification", "out/model")(" ".join(sentences()["tokens"][0]))
    assert {one["entity"] for one in told} <= {"B-PER", "O"}
    assert run_prediction("out/model", "words.json", output=Path("out.csv"), max_length=4) == 24
    with Path("out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert [line["word"] for line in lines] == [word for row in sentences()["tokens"] for word in row]
    assert lines[0].keys() == {"row", "word", "prediction", "probability"}
    assert [bool(line["prediction"]) for line in lines if line["row"] == "1"][:5] == [True] * 4 + [False]
    assert run_prediction("out/model", "books.csv", output=Path("texts.csv"), text_columns=("text",)) == 2


@pytest.fixture(autouse=True)
def texts(place):
    Path("books.csv").write_text("text\nCall me Ishmael\nDown went Alice\n")


def test_every_file_gives_the_same_run(place):
    found = [
        adapt("--dataset", name, "--test_dataset", name, "--output_dir", f"out-{number}", *more)
        for number, (name, *more) in enumerate(
            [
                ("words.json",),
                ("words.conll",),
                ("words.csv", "--task", "token-classification", "--label_column", "tags"),
            ]
        )
    ]
    assert found[0] == found[1] == found[2]


def test_domain_adaptation_of_words_without_target_tags(place):
    options = ["--dataset", "words.json", "--target_dataset", "unlabelled.json", "--objectives", "{dann: {}, mcc: {}}"]
    peft = ["--peft", "{peft_type: LORA, r: 2, target_modules: [query, value]}"]
    options += ["--test_dataset", "words.json", "--diagnostics", "true"]
    metrics = adapt(*options, *peft, "--guard", "true", "--output_dir", "out")
    results = json.loads(Path("out/model/results.json").read_text())
    assert "information_maximization" in results["validators"] and results["kept"] in ("adapted", "source only")
    assert metrics.keys() >= METRICS and (Path("out/figures/confusion.png")).is_file()
    assert results["class_shares"]["B-PER"][0] == pytest.approx(
        np.mean([tag == "B-PER" for row in sentences()["ner_tags"] for tag in row]), abs=0.01
    )


def test_ranking_reads_words_with_tags_in_words_or_numbers(place):
    rows = Dataset.from_dict(sentences())
    numbers = rows.map(lambda row: {"ner_tags": [int(tag == "O") for tag in row["ner_tags"]]})
    first, second = (rank_models(["bert"], one, progress=False).best for one in (rows, numbers))
    assert first.score == second.score and first.rows == second.rows == sum(map(len, rows["tokens"]))
    rows.to_parquet("words.parquet")
    for file in ("words.csv", "words.parquet"):
        assert run_ranking(["bert"], file, progress=False).best.score == first.score
    text = pd.read_csv("words.csv")
    text.loc[7, "tags"] = text.loc[7, "tags"] + " O"
    text.to_csv("miscounted.csv", index=False)
    with pytest.raises(
        ValueError, match="row 7 of the given dataset has .* words in column `sentence` and .* labels in"
    ):
        run_ranking(["bert"], "miscounted.csv", progress=False)


def test_labels_stand_at_the_first_token_of_a_word_and_lost_words_are_told(caplog):
    vocabulary = {"[PAD]": 0, "[UNK]": 1, "play": 2, "##ing": 3, "games": 4}
    tokenizer = Tokenizer(models.WordPiece(vocabulary, unk_token="[UNK]"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.normalizer = normalizers.Replace("\u200e", "")
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=tokenizer, pad_token="[PAD]", unk_token="[UNK]")
    rows = Dataset.from_dict(
        {"words": [["playing", "\u200e", "games", "play"], ["play"]], "labels": [[5, 6, 7, 8], [9]]}
    )
    with caplog.at_level("WARNING", "hf_transfer"):
        ready = TASK.prepare(rows, tiny.bert().config, tokenizer, max_length=3)
    assert ready["labels"][:] == [[5, -100, 7], [9]] and ready["first_tokens"][:] == [[0, -1, 2, -1], [0]]
    assert "2 words in 1 rows, the first in row 0, are not read" in caplog.text
    batch = TASK.collator(tokenizer, ready)([dict(row) for row in ready])
    assert batch["labels"].tolist() == [[5, -100, 7], [9, -100, -100]] and "first_tokens" not in batch
    assert batch["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0]]


def test_metrics_are_of_words_alone_and_of_entities_only_where_names_tell_them():
    config = tiny.bert(num_labels=2).config
    labels = np.array([[-100, 0, 1, -100], [1, -100, -100, -100]])
    logits = np.zeros((2, 4, 2))
    logits[0, 1, 0] = logits[0, 2, 0] = logits[1, 0, 1] = 1.0  # right, wrong, right
    found = TASK.label_metrics(config)(EvalPrediction(predictions=logits, label_ids=labels))
    assert found["accuracy"] == 2 / 3 and "entity_f1" not in found
    config.id2label = {0: "B-X", 1: "O"}
    found = TASK.label_metrics(config)(EvalPrediction(predictions=logits, label_ids=labels))
    assert found["entity_precision"] == 0.5 and found["entity_recall"] == 1.0
    assert set(found) == set(TASK.metric_names(config))


@pytest.mark.parametrize(
    ("changes", "argv", "message"),
    [
        ({"ner_tags": [["O"]] * 24}, [], r"row 0 of the training \(`odd.json`\) dataset has 4 words .* and 1 labels"),
        ({}, ["--labels_per_class", "2"], "`labels_per_class` chooses rows by their class"),
        ({}, ["--problem_type", "regression"], "has one class a word, not regression"),
        ({}, ["--objectives", "{fixmatch: {}}"], "compare augmented copies of whole rows|compares whole rows"),
    ],
)
def test_what_cannot_be_trained_on_is_said_before_training(place, changes, argv, message, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    Dataset.from_dict({**sentences(), **changes}).to_json("odd.json")
    target = ["--target_dataset", "unlabelled.json"] if "--objectives" in argv else []
    with pytest.raises(ValueError, match=message):
        adapt("--dataset", "odd.json", "--output_dir", "out", *target, *argv)


def test_a_tag_that_the_training_rows_lack_is_refused(place):
    Dataset.from_dict({"tokens": [["Rome"]], "ner_tags": [["B-LOC"]]}).to_json("test.json")
    with pytest.raises(ValueError, match="row 0 of the test dataset has the label 'B-LOC', which is none of the 2 of"):
        adapt("--dataset", "words.json", "--test_dataset", "test.json", "--output_dir", "out")


def test_a_slow_tokenizer_is_refused():
    with pytest.raises(ValueError, match="has no tokenizer"):
        TASK.prepare(Dataset.from_dict({"words": [["a"]]}), tiny.bert().config, None)
    with pytest.raises(ValueError, match="by the model's tokenizer"):
        TASK.collator(None, Dataset.from_dict({"words": [["a"]]}))


def test_a_new_tagger_trains_a_tokenizer_of_the_words(place):
    sizes = "{model_type: bert, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, intermediate_size: 16}"
    argv = ["--architecture", sizes, "--tokenizer", "{vocab_size: 300}", "--dataset", "words.json", *SETTINGS]
    torch.manual_seed(0)
    run_adaptation(parse_arguments([*argv, "--output_dir", "out"]))
    assert AutoModelForTokenClassification.from_pretrained("out/model").config.num_labels == 2
