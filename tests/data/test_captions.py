import pytest
from datasets import Dataset, concatenate_datasets

from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.captions import caption_column, caption_tokens, ending_texts
from hf_transfer.data.collators import PairCollator
from hf_transfer.data.prepare import prepare
from tests.pretraining import pairs

ROWS = {"caption": ["a dog", "a cat"], "label": ["x", "y"], "size": [1, 2]}


def test_the_one_column_of_texts_is_found_or_named():
    rows = Dataset.from_dict(ROWS)
    assert caption_column(rows) == "caption"
    two = rows.add_column("title", ["dog", "cat"])
    assert caption_column(two, ["title"]) == "title"
    for dataset, named in ((two, []), (rows, ["size"]), (rows.remove_columns("caption"), []), (two, ["a", "b"])):
        with pytest.raises(ValueError, match="an image needs one column with its text"):
            caption_column(dataset, named)


@pytest.mark.parametrize("missing", [None, "", "  \n"])
def test_a_row_without_caption_is_named(missing):
    rows = Dataset.from_dict({"caption": ["a dog", missing, "a cat", missing]})
    with pytest.raises(ValueError, match=r"`caption` of the given dataset has no caption in row 1, 3 \(the first"):
        caption_column(rows)
    with pytest.raises(ValueError, match="has no caption in row 3"):  # its number in the data set it was read from
        caption_column(rows.select([0, 2, 3]))


def test_captions_of_a_bert_are_as_long_as_they_are_and_of_a_siglip_all_alike():
    texts = ["this is zero", "a drawing of seven"]
    plain = caption_tokens(texts, pairs.tokenizer(), pairs.dual_encoder().config)
    assert [len(ids) for ids in plain["input_ids"]] == [4, 5] and plain["input_ids"][0][-1] == 3
    filled = caption_tokens(texts, pairs.tokenizer(), pairs.siglip().config)
    assert [len(ids) for ids in filled["input_ids"]] == [12, 12]
    short = caption_tokens(texts, pairs.tokenizer(), pairs.siglip().config, max_length=3)
    assert [len(ids) for ids in short["input_ids"]] == [3, 3] and short["input_ids"][1][-1] == 3


def test_a_clip_needs_the_end_of_a_text():
    config = pairs.clip().config
    assert caption_tokens(["this is zero"], pairs.tokenizer(), config)["input_ids"][0][-1] == 3
    bare = pairs.tokenizer()
    bare.backend_tokenizer.post_processor = None
    with pytest.raises(ValueError, match="reads a text at its end token 3, and the tokenizer gives 'this is zero' n"):
        caption_tokens(["this is zero"], bare, config)
    config.text_config.eos_token_id = 2  # as the first CLIPs have it: the largest number of a text is its end
    caption_tokens(["this is zero"], bare, config)


def test_a_new_tokenizer_ends_every_text_even_a_cut_one():
    tokenizer = ending_texts(train_bpe(["red", "red blue"], vocab_size=258))
    assert tokenizer("red")["input_ids"][-1] == tokenizer.eos_token_id
    cut = tokenizer("red blue red", truncation=True, max_length=4)["input_ids"]
    assert len(cut) == 4 and cut[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("name", sorted(pairs.MODELS))
def test_pictures_and_captions_become_a_batch_that_the_model_reads(name):
    model, rows = pairs.MODELS[name](), pairs.captioned(0, 6, labelled=True)
    ready = prepare(rows, model.config, pairs.processor())
    assert set(ready.column_names) >= {"pixel_values", "input_ids", "labels"} and "caption" not in ready.column_names
    batch = PairCollator(pairs.tokenizer())([ready[place] for place in range(6)])
    assert batch["pixel_values"].shape == (6, 1, 14, 14) and batch["labels"].tolist() == rows["label"][:]
    longest = {"siglip": 12}.get(name, 5)
    assert batch["input_ids"].shape == batch["attention_mask"].shape == (6, longest)
    words = [pairs.tokenizer().decode(ids, skip_special_tokens=True) for ids in batch["input_ids"]]
    assert words == list(rows["caption"])
    inputs = {key: value for key, value in batch.items() if key != "labels"}
    assert model(**inputs).logits_per_image.shape == (6, 6)
    together = ready[0:6]  # several rows at once, whose captions are not of one length
    assert together["pixel_values"].shape == (6, 1, 14, 14) and len(together["input_ids"]) == 6


def test_labels_are_dropped_where_they_are_not_wanted():
    ready = prepare(
        pairs.captioned(0, 4, labelled=True), pairs.dual_encoder().config, pairs.processor(), keep_labels=False
    )
    assert not {"label", "labels"} & set(ready.column_names)
    assert "labels" not in PairCollator(pairs.tokenizer())([ready[0], ready[1]])


def test_no_picture_or_two_of_them_are_refused():
    rows, config = pairs.captioned(0, 4), pairs.dual_encoder().config
    with pytest.raises(ValueError, match=r"need one image column, got \[\] in \['caption'\]"):
        prepare(rows.remove_columns("image"), config, pairs.processor())
    two = concatenate_datasets([rows, rows.select_columns("image").rename_column("image", "other")], axis=1)
    with pytest.raises(ValueError, match=r"need one image column, got \['image', 'other'\]"):
        prepare(two, config, pairs.processor())
    holes = Dataset.from_dict({"image": [rows[0]["image"], None], "caption": ["a", "b"]}, features=rows.features)
    with pytest.raises(ValueError, match="row 1 of column `image` has no picture"):
        prepare(holes, config, pairs.processor())


def test_a_token_that_the_text_tower_does_not_know_is_refused():
    config = pairs.dual_encoder().config
    config.text_config.vocab_size = 6
    with pytest.raises(ValueError, match="the model has embeddings for 0 to 5"):
        prepare(pairs.captioned(0, 4), config, pairs.processor())
