import pytest
import torch
from datasets import Dataset
from transformers import RobertaConfig, RobertaModel, default_data_collator

from hf_transfer.data.bundled import optical_digits
from hf_transfer.data.images import image_processor, with_pixel_values
from hf_transfer.data.prepare import prepare
from hf_transfer.modeling.inputs import choose_columns, make_batches
from tests import tiny


@pytest.fixture(scope="module")
def raw():
    return optical_digits().select(range(6))


@pytest.fixture
def texts():
    pairs = tiny.SENTENCES[:6]
    return Dataset.from_dict({"text": [text for text, _ in pairs], "label": [book for _, book in pairs]})


def test_model_inputs_come_back_as_they_are(digits):
    assert prepare(digits, tiny.vit().config) is digits


def test_images_without_a_processor_are_resized_to_the_models_size(raw):
    rows = prepare(raw, tiny.vit().config)
    assert torch.equal(rows[:]["pixel_values"], with_pixel_values(raw, 14, 1)[:]["pixel_values"])
    assert rows[:]["labels"].tolist() == raw["label"][:]


def test_images_go_through_the_processor(raw):
    processor = image_processor(14, 1)
    rows = prepare(raw, tiny.vit().config, processor)
    expected = processor([image.convert("L") for image in raw["image"]], return_tensors="pt")["pixel_values"]
    torch.testing.assert_close(rows[:]["pixel_values"], expected)
    assert default_data_collator([rows[0], rows[1]])["labels"].tolist() == raw["label"][:2]


def test_text_goes_through_the_tokenizer(texts):
    reader = tiny.tokenizer()
    rows = prepare(texts, tiny.bert().config, reader, max_length=5)
    expected = reader(list(texts["text"]), truncation=True, max_length=5)["input_ids"]
    assert list(rows["input_ids"]) == expected
    assert max(map(len, expected)) == 5
    assert list(rows["labels"]) == list(texts["label"])


def test_two_text_columns_make_a_pair(texts):
    pairs = texts.add_column("answer", list(texts["text"])[::-1])
    rows = prepare(pairs, tiny.bert().config, tiny.tokenizer())
    assert len(rows[0]["input_ids"]) == len(rows[5]["input_ids"])
    one = prepare(pairs, tiny.bert().config, tiny.tokenizer(), text_columns=["text"])
    assert len(one[0]["input_ids"]) < len(rows[0]["input_ids"])


@pytest.mark.parametrize("name", ["label", "labels"])
def test_labels_are_dropped_where_asked(texts, name):
    texts = texts.rename_column("label", name) if name != "label" else texts
    rows = prepare(texts, tiny.bert().config, tiny.tokenizer(), keep_labels=False)
    assert not {"label", "labels"} & set(rows.column_names)


def test_text_without_a_tokenizer_is_refused(texts):
    with pytest.raises(ValueError, match=r"columns \['text'\] hold text, and the model's folder has no tokenizer"):
        prepare(texts, tiny.bert().config)


def test_nothing_to_read_is_refused():
    with pytest.raises(ValueError, match=r"found no image column and 0 text columns in \['age', 'label'\]"):
        prepare(Dataset.from_dict({"age": [3], "label": [0]}), tiny.bert().config, tiny.tokenizer())


def test_a_tokenizer_larger_than_the_embeddings_is_refused(texts):
    small = tiny.bert()
    small.resize_token_embeddings(20)
    with pytest.raises(ValueError, match=r"embeddings for 0 to 19 .*the tokenizer that the model was saved with"):
        prepare(texts, small.config, tiny.tokenizer())
    columns = choose_columns(texts, small)
    with pytest.raises(ValueError, match="embeddings for 0 to 19"):
        list(make_batches(texts, columns, tiny.tokenizer(), small, batch_size=8))


def test_a_tokenizer_whose_last_tokens_do_not_occur_is_fine(texts):
    tokenizer = tiny.tokenizer()
    tokenizer.add_tokens([f"<unused {place}>" for place in range(200)])
    assert len(prepare(texts, tiny.bert().config, tokenizer)) == 6


@pytest.mark.parametrize("way", ["prepare", "rank"])
def test_a_long_text_is_cut_to_what_roberta_reads(way):
    sizes = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
    model = RobertaModel(RobertaConfig(**sizes, vocab_size=200, max_position_embeddings=34))
    texts = Dataset.from_dict({"text": ["Call me Ishmael. " * 30], "label": [0]})
    if way == "prepare":
        ids = torch.tensor(prepare(texts, model.config, tiny.tokenizer())["input_ids"][:])
    else:
        columns = choose_columns(texts, model)
        ids = next(iter(make_batches(texts, columns, tiny.tokenizer(), model, batch_size=1)))[0]["input_ids"]
    assert ids.shape == (1, 32)
    model(input_ids=ids)


def test_a_model_that_does_not_know_its_images_size_needs_a_processor(raw):
    with pytest.raises(ValueError, match="configuration of a resnet model nor an image processor says how large"):
        prepare(raw, tiny.resnet().config)
