"""Question answering from a file to a saved folder: adaptation, evaluation, prediction, long contexts, refusals."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset
from huggingface_hub import ModelCard
from transformers import AutoModelForQuestionAnswering, BertForQuestionAnswering

from hf_transfer.core.objective import View
from hf_transfer.core.supervision import FromSpans
from hf_transfer.data.bundled import load
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.saving import read_results
from hf_transfer.tasks import task_named
from hf_transfer.tasks.arguments import DataArguments
from hf_transfer.training.transfer_model import TransferModel, make_objectives
from tests import tiny
from tests.runs.folders import QUICK, save_text_model

TASK = task_named("question-answering")
NAMES = ("Ishmael", "Alice", "Dinah", "Taylor")
METRICS = {"f1", "exact_match", "has_answer_f1", "no_answer_accuracy", "loss"}
LORA = "{peft_type: LORA, r: 2, target_modules: [query, value]}"


def questions() -> list[dict]:
    """Who is named, in every sentence; some name nobody."""
    rows = []
    for text, _ in tiny.SENTENCES:
        found = [name for name in NAMES if name in text][:1]
        answers = {"text": found, "answer_start": [text.index(name) for name in found]}
        rows.append({"question": "What do you see?", "context": text, "answers": answers})
    return rows


def nested(rows: list[dict]) -> dict:
    def answers(row: dict) -> list[dict]:
        return [{"text": text, "answer_start": at} for text, at in zip(*row["answers"].values(), strict=True)]

    paragraphs = [
        {"context": row["context"], "qas": [{"id": str(i), "question": row["question"], "answers": answers(row)}]}
        for i, row in enumerate(rows)
    ]
    return {"version": "2.0", "data": [{"title": "Books", "paragraphs": paragraphs}]}


@pytest.fixture
def place(tmp_path, monkeypatch):
    """A folder with a tiny backbone and a file of questions."""
    monkeypatch.chdir(tmp_path)
    save_text_model(tmp_path / "bert", tiny.bert())
    Dataset.from_list(questions()).to_json("rows.json")
    return tmp_path


def adapt(*argv: str) -> dict:
    return run_adaptation(parse_arguments(["--model", "bert", *QUICK, "--learning_rate", "1e-2", *argv]))


def test_from_a_file_to_a_saved_folder(place):
    Path("squad.json").write_text(json.dumps(nested(questions())))
    metrics = adapt("--dataset", "rows.json", "--test_dataset", "squad.json", "--output_dir", "out")
    assert metrics.keys() == METRICS == read_results("out/model").keys()
    model = AutoModelForQuestionAnswering.from_pretrained("out/model")
    assert model.config.num_labels == 2  # the folder had a head of three classes
    assert ModelCard.load("out/model/README.md").data.pipeline_tag == "question-answering"
    measured = run_evaluation("out/model", "squad.json")
    assert dict(measured) == pytest.approx(metrics)
    rows = Dataset.from_list([{"id": f"q{i}", **row} for i, row in enumerate(questions())])
    rows.remove_columns("answers").to_json("unanswered.json")
    assert run_prediction("out/model", "unanswered.json", output=Path("out.csv")) == 24
    with Path("out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert lines[3].keys() == {"row", "id", "question", "prediction", "answer_start", "probability"}
    for line, row in zip(lines, questions(), strict=True):
        start = int(line["answer_start"])
        assert line["prediction"] == ("" if start < 0 else row["context"][start : start + len(line["prediction"])])


def test_answers_are_learned_also_by_lora_and_l2_sp(place):
    argv = [
        "--dataset",
        "rows.json",
        "--test_dataset",
        "rows.json",
        "--objectives",
        "{l2_sp: {}}",
        "--max_steps",
        "40",
    ]
    torch.manual_seed(0)
    metrics = adapt(*argv, "--peft", LORA, "--learning_rate", "5e-2", "--output_dir", "out")
    assert metrics["f1"] > 0.7
    assert run_evaluation("out/model", "rows.json")["f1"] == pytest.approx(metrics["f1"])


@pytest.mark.parametrize("suffix", ["json", "parquet", "csv"])
def test_every_file_gives_the_same_rows(place, suffix):
    rows = Dataset.from_list(questions())
    if suffix == "csv":
        rows = rows.remove_columns("answers").add_column("answers", [json.dumps(one) for one in rows["answers"]])
    getattr(rows, f"to_{suffix}")(f"same.{suffix}")
    arranged = TASK.arranged(load(f"same.{suffix}"), DataArguments("x"), "training")
    assert arranged["labels"][:] == [row["answers"] for row in questions()]
    renamed = rows.rename_columns({"question": "ask", "context": "passage", "answers": "gold"})
    arguments = DataArguments("x", text_columns=["ask", "passage"], label_column="gold")
    assert TASK.arranged(renamed, arguments, "training")["labels"][:] == arranged["labels"][:]


def test_long_contexts_become_windows_and_the_answer_is_found_in_one(caplog):
    words = [word for text, _ in tiny.SENTENCES for word in text.replace(".", " .").split()][:120]
    context = " ".join(words)
    start = context.index("pistol")
    rows = Dataset.from_dict({"question": ["What do you see?"] * 2, "context": [context] * 2})
    answers = [{"text": ["pistol and ball"], "answer_start": [start]}, {"text": [context[:200]], "answer_start": [0]}]
    rows = TASK.arranged(rows.add_column("answers", answers), DataArguments("x"), "training")
    tokenizer = tiny.tokenizer()
    with caplog.at_level("WARNING", "hf_transfer"):
        ready = TASK.prepare(rows, tiny.bert().config, tokenizer)
    assert "1 answers, the first in row 1, are not trained on" in caplog.text
    assert max(map(len, ready["input_ids"])) == 32 and ready["row"][:] == sorted(ready["row"])
    seen = set()
    for row, spans in zip(ready["row"], ready["offsets"], strict=True):
        seen |= {(row, *span) for span in spans if span[0] >= 0}
    assert len({span for span in seen if span[0] == 0}) == len(
        tokenizer.tokenize(context)
    )  # every word is in a window
    held = [(first, last, spans) for (first, last), spans in zip(ready["labels"], ready["offsets"]) if first != last]
    assert held and all(context[spans[a][0] : spans[b][1]] == "pistol and ball" for a, b, spans in held)
    outputs = np.zeros((len(ready), 32, 2))
    for window, (first, last) in enumerate(ready["labels"]):
        outputs[window, first, 0] = outputs[window, last, 1] = 5.0
    found = TASK.answers(rows, ready, outputs, tiny.bert().config)
    assert found["prediction"] == ["pistol and ball", ""] and found["answer_start"] == [start, -1]


def test_the_loss_is_that_of_transformers_without_padding():
    torch.manual_seed(0)
    model = BertForQuestionAnswering(tiny.bert(num_labels=2).config)
    ids, mask = torch.randint(2, 100, (3, 7)), torch.ones(3, 7, dtype=torch.long)
    labels = torch.tensor([[1, 2], [0, 0], [4, 6]])
    wrapped = TransferModel(model)
    own = model(input_ids=ids, attention_mask=mask, start_positions=labels[:, 0], end_positions=labels[:, 1])
    output = wrapped(input_ids=ids, attention_mask=mask, labels=labels)
    torch.testing.assert_close(output.loss, own.loss)
    gradients = [torch.autograd.grad(loss, model.qa_outputs.weight)[0] for loss in (output.loss, own.loss)]
    torch.testing.assert_close(*gradients)
    padded = {"input_ids": F.pad(ids, (0, 5)), "attention_mask": F.pad(mask, (0, 5))}
    torch.testing.assert_close(wrapped(**padded, labels=labels).loss, own.loss)
    outputs = {name: torch.randn(2, 4, requires_grad=True) for name in ("start_logits", "end_logits")}
    view = View(None, None, torch.tensor([[1, 3], [-100, -100]]), None, 0.0, {})
    naive = -(outputs["start_logits"][0].log_softmax(0)[1] + outputs["end_logits"][0].log_softmax(0)[3]) / 2
    torch.testing.assert_close(FromSpans()(view, outputs, None), naive)


@pytest.mark.parametrize(
    ("change", "argv", "message"),
    [
        ({"answers": {"text": ["Emma"], "answer_start": [3]}}, [], r"row 5 of column `answers` of the training .*"
         "'Emma', which does not stand at character 3 of its context: it stands nowhere in it"),
        ({"answers": {"text": ["do"], "answer_start": [6]}}, [], "its first place is character 5"),
        ({"answers": None}, [], "column `answers` .* is empty in row 5"),
        ({"answers": {"text": ["do", "you"], "answer_start": [5]}}, [], "2 texts of answers and 1 starts"),
        ({"answers": {"text": [" "], "answer_start": [4]}}, [], "row 5 .* an answer is a text"),
        ({"context": None}, [], "column `context` .* is empty in row 5"),
        ({"question": " "}, [], "row 5 of column `question` .* is blank"),
        ({"question": "What do you see? " * 9}, [], "row 5: its question has 45 tokens, and at most 21 leave"),
        ({}, ["--text_columns", "[context]"], "`text_columns`"),
        ({}, ["--label_column", "gold"], "should have the columns"),
        ({}, ["--labels_per_class", "2"], "`labels_per_class` chooses rows by their class"),
        ({}, ["--problem_type", "regression"], "`problem_type` is for labels of rows"),
        ({}, ["--target_dataset", "rows.json"], "question-answering cannot be adapted to a domain"),
        ({}, ["--objectives", "{lwf: {}}"], "need logits, and the readout `Spans`|is defined for"),
        ({}, ["--label_smoothing_factor", "0.1"], "spans have a loss of their own"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_on_is_said_before_training(place, change, argv, message, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    rows = questions()
    rows[5] |= change
    Path("odd.json").write_text("\n".join(json.dumps(row) for row in rows))
    with pytest.raises(ValueError, match=message):
        adapt("--dataset", "odd.json", "--task", "question-answering", "--output_dir", "out", *argv)


def test_methods_that_read_classes_are_refused_and_weights_are_not():
    model = BertForQuestionAnswering(tiny.bert(num_labels=2).config)
    with pytest.raises(ValueError, match="need logits, and the readout `Spans`"):
        TransferModel(model, make_objectives({"mcc": {}}))
    output = TransferModel(model, make_objectives({"bss": {}})).train()(
        input_ids=torch.randint(2, 100, (4, 6)), labels=torch.zeros(4, 2, dtype=torch.long)
    )
    assert output.losses.keys() == {"task", "bss"} and output.logits.shape == (4, 6, 2)


def test_models_are_not_ranked_on_answers(place):
    with pytest.raises(ValueError, match="parts of contexts, which are no classes, and models are not ranked on them"):
        rank_models(["bert"], Dataset.from_list(questions()), progress=False)


def test_a_nested_file_that_lacks_a_part_is_refused(place):
    Path("bad.json").write_text(json.dumps({"data": [{"paragraphs": [{"context": "a", "qas": [{"id": "1"}]}]}]}))
    with pytest.raises(ValueError, match="paragraph 0 of article 0 lacks 'question'"):
        load("bad.json")


@pytest.mark.parametrize(
    ("name", "right"), [("masked-language-modeling", "fill-mask"), ("causal-language-modeling", "text-generation")]
)
def test_tasks_by_the_names_of_transformers_are_told_their_name_here(name, right):
    with pytest.raises(ValueError, match=f"{name} is called {right}, as on the Hub"):
        task_named(name)
