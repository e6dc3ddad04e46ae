import numpy as np
import pytest
import torch
from datasets import Dataset, Features, Sequence, Value
from transformers import AutoImageProcessor, AutoTokenizer

from hf_transfer.modeling.inputs import Columns, choose_columns, longest_first, make_batches, numbered_labels
from hf_transfer.modeling.loading import load_model
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerModel
from tests.ranking import conftest

digits = conftest.digits


def batches_of(dataset, model, processor=None, **options):
    columns = choose_columns(dataset, model)
    return columns, list(make_batches(dataset, columns, processor, model, batch_size=options.pop("batch_size", 4)))


def test_model_inputs_are_taken_as_they_are(zoo, digits):
    columns, batches = batches_of(digits, load_model(zoo / "vit0", str))
    assert (columns.label, columns.inputs, columns.kind) == ("labels", ("pixel_values",), "ready")
    inputs, labels = batches[0]
    torch.testing.assert_close(inputs["pixel_values"], digits["pixel_values"][:4])
    assert labels.tolist() == digits["labels"][:4].tolist() and len(batches) == 75


def test_images_go_through_the_processor(zoo, raw_digits, digits):
    model = load_model(zoo / "vit0", str)
    columns, batches = batches_of(raw_digits, model, AutoImageProcessor.from_pretrained(zoo / "vit0"))
    assert (columns.label, columns.inputs, columns.kind) == ("label", ("image",), "image")
    assert choose_columns(raw_digits.with_format("torch"), model) == columns
    torch.testing.assert_close(batches[0][0]["pixel_values"], digits["pixel_values"][:4], atol=0.01, rtol=0)


def test_a_transform_on_the_fly_is_left_alone(zoo, raw_digits):
    processor = AutoImageProcessor.from_pretrained(zoo / "vit0")

    def transform(rows):
        return {**processor(rows["image"], return_tensors="pt"), "labels": rows["label"]}

    columns, batches = batches_of(raw_digits.with_transform(transform), load_model(zoo / "vit0", str))
    assert columns.kind == "ready" and batches[0][0]["pixel_values"].shape == (4, 1, 8, 8)


def test_text_is_tokenised_and_padded(zoo, reviews):
    model, tokenizer = load_model(zoo / "bert", str), AutoTokenizer.from_pretrained(zoo / "bert")
    columns, batches = batches_of(reviews, model, tokenizer)
    assert (columns.inputs, columns.kind) == (("text",), "text")
    inputs, _ = batches[0]
    expected = tokenizer(list(reviews["text"][:4]), padding=True, return_tensors="pt")
    assert torch.equal(inputs["input_ids"], expected["input_ids"])
    assert inputs["attention_mask"].sum(1).tolist() == [3, 5, 1, 2]


def test_text_pairs_and_max_length(zoo):
    model, tokenizer = load_model(zoo / "bert", str), AutoTokenizer.from_pretrained(zoo / "bert")
    pairs = Dataset.from_dict({"premise": ["a good film"] * 4, "hypothesis": ["fine"] * 4, "label": [0, 1, 0, 1]})
    columns = choose_columns(pairs, model)
    assert columns.inputs == ("premise", "hypothesis")
    [(inputs, _)] = make_batches(pairs, columns, tokenizer, model, batch_size=4)
    assert inputs["input_ids"].shape == (4, 4)
    [(inputs, _)] = make_batches(pairs, columns, tokenizer, model, batch_size=4, max_length=3)
    assert inputs["input_ids"].shape == (4, 3)


def test_a_long_text_is_cut_at_what_the_model_reads(zoo):
    model, tokenizer = load_model(zoo / "bert", str), AutoTokenizer.from_pretrained(zoo / "bert")
    for data in ({"text": ["good " * 50]}, {"tokens": [["good"] * 50]}):
        long = Dataset.from_dict({**data, "label": [0] if "text" in data else [[0] * 50]})
        _, [(inputs, _)] = batches_of(long, model, tokenizer)
        assert inputs["input_ids"].shape == (1, 32)
    columns = choose_columns(long, model)
    [(inputs, _)] = make_batches(long, columns, tokenizer, model, batch_size=4, max_length=40)
    assert inputs["input_ids"].shape == (1, 32)


def test_ids_of_different_length_are_padded_and_masked(zoo):
    data = Dataset.from_dict({"input_ids": [[2, 3, 4], [5], [6, 7]], "labels": [0, 1, 0]})
    _, [(inputs, _)] = batches_of(data, load_model(zoo / "bert", str))
    assert inputs["input_ids"].tolist() == [[2, 3, 4], [5, 0, 0], [6, 7, 0]]
    assert inputs["attention_mask"].tolist() == [[1, 1, 1], [1, 0, 0], [1, 1, 0]]


def test_words_carry_their_label_on_their_first_token(zoo):
    data = Dataset.from_dict({"tokens": [["good", "film"], ["bad"]], "ner_tags": [[3, 1], [2]]})
    columns, [(inputs, labels)] = batches_of(
        data, load_model(zoo / "bert", str), AutoTokenizer.from_pretrained(zoo / "bert")
    )
    assert columns.is_per_token and columns.label == "ner_tags"
    assert labels.tolist() == [[3, 1], [2, -100]]
    assert inputs["input_ids"].tolist() == [[2, 6], [3, 0]]


def test_token_labels_beside_ids(zoo):
    data = Dataset.from_dict({"input_ids": [[2, 3, 4], [5]], "labels": [[1, 0, 1], [2]]})
    columns, [(_, labels)] = batches_of(data, load_model(zoo / "bert", str))
    assert columns.is_per_token and labels.tolist() == [[1, 0, 1], [2, -100, -100]]


def test_series_of_different_length():
    config = FlowformerConfig.from_size(
        "tiny", modality="time_series", hidden_size=16, intermediate_size=16, num_input_channels=2
    )
    model = FlowformerModel(config)
    series = [np.ones((length, 2)).tolist() for length in (5, 3, 4)]
    columns, [(inputs, labels)] = batches_of(Dataset.from_dict({"series": series, "label": [0, 1, 2]}), model)
    assert columns.kind == "series"
    assert inputs["past_values"].shape == (3, 5, 2) and inputs["past_values"][1, 3:].abs().sum() == 0
    assert inputs["attention_mask"].sum(1).tolist() == [5, 3, 4]
    assert labels.tolist() == [0, 1, 2]


def test_labels_may_be_values_or_several(zoo, digits):
    model = load_model(zoo / "vit0", str)
    pixels = digits["pixel_values"][:4].numpy()
    _, [(_, labels)] = batches_of(Dataset.from_dict({"pixel_values": pixels, "label": [0.5, 1.5, 2.0, 0.0]}), model)
    assert labels.dtype.is_floating_point and labels.shape == (4,)
    _, [(_, labels)] = batches_of(Dataset.from_dict({"pixel_values": pixels, "labels": [[1, 0, 1]] * 4}), model)
    assert labels.shape == (4, 3)


def test_unusable_datasets_say_what_to_do(zoo, reviews, digits):
    model = load_model(zoo / "bert", str)
    with pytest.raises(ValueError, match="No label column"):
        choose_columns(reviews.rename_column("label", "stars"), model)
    assert choose_columns(reviews.rename_column("label", "stars"), model, label_column="stars").label == "stars"
    with pytest.raises(ValueError, match="no rows|is empty"):
        choose_columns(reviews.select([]), model)
    with pytest.raises(ValueError, match="No column that BertModel could read"):
        choose_columns(digits.rename_column("pixel_values", "pixels"), model)
    several = Dataset.from_dict({"id": ["x"], "text": ["good"], "url": ["y"], "label": [0]})
    with pytest.raises(ValueError, match="say which to read by `input_columns`"):
        choose_columns(several, model)
    assert choose_columns(several, model, input_columns="text").inputs == ("text",)
    with pytest.raises(ValueError, match="`input_columns` names"):
        choose_columns(several, model, input_columns=["txt"])
    words = Dataset.from_dict({"text": ["good"], "label": ["positive"]})
    with pytest.raises(ValueError, match="class_encode_column"):
        batches_of(words, model, AutoTokenizer.from_pretrained(zoo / "bert"))


@pytest.mark.parametrize(
    ("labels", "numbers"),
    [
        (["good film", "bad", "bad"], [1, 0, 0]),
        ([True, False, True], [1, 0, 1]),
        ([1, 5, 3], [0, 4, 2]),
        ([1.0, 2.0, 2.0], [0, 1, 1]),
        ([0.5, 1.5, 2.0], [0.5, 1.5, 2.0]),
        ([[1, 0], [0, 0], [1, 1]], [[1, 0], [0, 0], [1, 1]]),
        ([["a"], ["a", "b"], []], [[1, 0], [1, 1], [0, 0]]),
    ],
)
@pytest.mark.parametrize("column", ["label", "stars"])
def test_labels_are_read_as_every_command_reads_them(zoo, labels, numbers, column):
    rows = Dataset.from_dict({"text": ["good", "bad", "fine"], column: labels})
    read = numbered_labels(rows, None if column == "label" else column)
    assert sorted(read.column_names) == sorted(rows.column_names) and read[column][:] == numbers


def test_a_class_a_token_stays_as_it_is():
    for rows in ({"tokens": [["a", "b"]], "ner_tags": [[3, 1]]}, {"input_ids": [[7, 8]], "labels": [[0, 5]]}):
        data = Dataset.from_dict(rows)
        assert numbered_labels(data, None) is data


def test_a_missing_label_is_named():
    rows = Dataset.from_dict({"text": ["a", "b"], "label": ["x", None]})
    with pytest.raises(ValueError, match="column `label` of the given dataset has no label .* in row 1 "):
        numbered_labels(rows, None)


def test_class_labels_keep_their_type(zoo, digits):
    features = Features({"pixel_values": Sequence(Sequence(Sequence(Value("float32")))), "labels": Value("int8")})
    data = Dataset.from_dict({"pixel_values": digits["pixel_values"][:4].numpy(), "labels": [0, 1, 2, 3]}, features)
    _, [(_, labels)] = batches_of(data, load_model(zoo / "vit0", str))
    assert not labels.is_floating_point()


@pytest.mark.parametrize(
    ("name", "kind", "values"),
    [
        ("text", "text", ["abc", "a", "", "abcdef"]),
        ("tokens", "words", [["a", "b", "c"], ["a"], [], ["a"] * 6]),
        ("input_ids", "ready", [[1, 2, 3], [1], [], [1] * 6]),
        ("series", "series", [[[0.1]] * 3, [[0.1]], [], [[0.1]] * 6]),
    ],
)
def test_long_rows_come_first(name, kind, values):
    dataset = Dataset.from_dict({name: values, "label": [0, 1, 2, 3]})
    assert longest_first(dataset, Columns("label", (name,), kind)).tolist() == [3, 0, 1, 2]


def test_rows_of_unknown_length_keep_their_order(raw_digits):
    pictures = raw_digits.select(range(3))
    assert longest_first(pictures, Columns("label", ("image",), "image")).tolist() == [0, 1, 2]
    texts = Dataset.from_dict({"text": ["a", "abc"], "label": [0, 1]})
    texts.set_transform(lambda rows: rows)
    assert longest_first(texts, Columns("label", ("text",), "text")).tolist() == [0, 1]
