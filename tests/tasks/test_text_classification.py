"""Texts and pairs of texts from files."""

import pytest
from datasets import Dataset
from transformers import AutoConfig

from hf_transfer.data.text_columns import find_text_columns
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import DataArguments, parse_arguments
from hf_transfer.runs.data import load_data
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import predict_rows
from tests import tiny
from tests.runs.folders import QUICK


def test_a_pair_has_the_order_of_the_training_rows(tmp_path):
    columns = {
        "premise": [f"it is {n} now" for n in range(8)],
        "hypothesis": [f"so it was {n * 3 % 8} then" for n in range(8)],
        "label": [0, 1] * 4,
    }
    first, other = str(tmp_path / "first.csv"), str(tmp_path / "other.csv")
    Dataset.from_dict(columns).to_csv(first, index=False)
    Dataset.from_dict({name: columns[name] for name in ("hypothesis", "label", "premise")}).to_csv(other, index=False)
    data = load_data(DataArguments(first, target_dataset=other, test_dataset=other))
    for rows in (data.train, data.target, data.test):
        assert find_text_columns(rows) == ["premise", "hypothesis"]
        assert rows["premise"][3] == "it is 3 now" and rows["hypothesis"][3] == "so it was 1 then"


@pytest.mark.parametrize("more", [(), ("--peft", "{peft_type: LORA, target_modules: [query]}")])
def test_a_saved_model_reads_the_texts_of_its_training(here, more):
    """In any order of the columns, and among others: a pair that is turned round is another question."""
    texts, books = zip(*tiny.SENTENCES)
    pairs = Dataset.from_dict(
        {"premise": texts, "claim": texts[5:] + texts[:5], "label": [book % 2 for book in books]}
    )
    pairs.to_csv("pairs.csv", index=False)
    turned = pairs.select_columns(["label", "claim", "premise"]).add_column("note", ["some word"] * len(pairs))
    turned.to_csv("turned.csv", index=False)
    words = ["--model", "bert", "--dataset", "pairs.csv", "--output_dir", "out", "--learning_rate", "0.05", *more]
    run_adaptation(parse_arguments([*words, *QUICK, "--max_steps", "8"]))
    model = str(here / "out" / "model")
    told = run_evaluation(model, "pairs.csv")
    assert run_evaluation(model, "turned.csv") == pytest.approx(told)
    assert run_evaluation(model, "turned.csv", text_columns=("claim", "premise")) != pytest.approx(told)
    answers = predict_rows(model, "pairs.csv").columns["probability"]
    assert predict_rows(model, "turned.csv").columns["probability"] == pytest.approx(answers)


def other_rows(columns: dict[str, list], *, turned: dict[str, str], name: str) -> str:
    """A file of these columns under other names and in another order."""
    Dataset.from_dict({turned.get(one, one): columns[one] for one in reversed(columns)}).to_csv(name, index=False)
    return name


def test_a_pair_of_which_one_text_is_called_otherwise_is_refused(here):
    texts, books = zip(*tiny.SENTENCES)
    columns = {"premise": texts, "claim": texts[5:] + texts[:5], "label": [book % 2 for book in books]}
    Dataset.from_dict(columns).to_csv("pairs.csv", index=False)
    half = other_rows(columns, turned={"premise": "first"}, name="half.csv")
    none = other_rows(columns, turned={"premise": "second", "claim": "first"}, name="none.csv")
    Dataset.from_dict(columns).remove_columns("premise").to_csv("one.csv", index=False)
    message = r"rows have no text column `premise`, and the model reads \['premise', 'claim'\]; they have the text"
    words = ["--model", "bert", "--dataset", "pairs.csv", "--output_dir", "out"]
    model = str(run_adaptation(parse_arguments([*words, *QUICK])).folder)
    for name in (half, "one.csv"):
        for read in (run_evaluation, predict_rows):
            with pytest.raises(ValueError, match=message):
                read(model, name)
        with pytest.raises(ValueError, match=message):
            load_data(DataArguments("pairs.csv", test_dataset=name))
    assert run_evaluation(model, none).rows == len(texts), "of other names the order counts"


def test_another_text_column_of_the_test_rows_is_not_read(here):
    """Without a word of the user: the training rows have one text, and so no pair is measured."""
    texts, books = zip(*tiny.SENTENCES)
    columns = {"text": texts, "label": [book % 2 for book in books]}
    Dataset.from_dict(columns).to_csv("plain.csv", index=False)
    Dataset.from_dict({"note": texts[3:] + texts[:3], **columns}).to_csv("noted.csv", index=False)
    words = ["--model", "bert", "--dataset", "plain.csv", *QUICK]
    plain = run_adaptation(parse_arguments([*words, "--test_dataset", "plain.csv", "--output_dir", "first"]))
    noted = run_adaptation(parse_arguments([*words, "--test_dataset", "noted.csv", "--output_dir", "second"]))
    assert dict(noted) == pytest.approx(dict(plain))
    assert run_evaluation(str(plain.folder), "noted.csv")["loss"] == pytest.approx(plain["loss"])


def test_the_columns_of_an_earlier_training_are_forgotten(here):
    texts, books = zip(*tiny.SENTENCES)
    labels = [book % 2 for book in books]
    Dataset.from_dict({"id": texts[::-1], "body": texts, "label": labels}).to_csv("named.csv", index=False)
    Dataset.from_dict({"text": texts, "label": labels}).to_csv("plain.csv", index=False)
    named = ["--model", "bert", "--dataset", "named.csv", "--text_columns", "[body]", "--output_dir", "first"]
    first = run_adaptation(parse_arguments([*named, *QUICK])).folder
    assert AutoConfig.from_pretrained(first).text_columns == ["body"]
    assert run_evaluation(str(first), "named.csv") == pytest.approx(
        run_evaluation(str(first), "named.csv", text_columns=("body",))
    )
    plain = ["--model", str(first), "--dataset", "plain.csv", "--output_dir", "second"]
    assert AutoConfig.from_pretrained(run_adaptation(parse_arguments([*plain, *QUICK])).folder).text_columns == [
        "text"
    ]
