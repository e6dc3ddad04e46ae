import pytest
from datasets import Dataset

from hf_transfer.data.bpe import train_bpe
from hf_transfer.data.language_blocks import language_blocks

TEXTS = ["one two", "three", "four five six seven"]


def test_blocks_are_the_joined_text():
    tokenizer = train_bpe(TEXTS, 258)
    blocks = language_blocks(Dataset.from_dict({"text": TEXTS, "page": [1, 2, 3]}), tokenizer, 8)
    joined = [token for text in TEXTS for token in [*tokenizer(text)["input_ids"], 1]]
    assert blocks["input_ids"][:] == blocks["labels"][:]
    assert [token for block in blocks["input_ids"] for token in block] == joined[: len(joined) // 8 * 8]
    assert blocks.column_names == ["input_ids", "labels"]


def test_nothing_between_texts():
    tokenizer = train_bpe(TEXTS, 258)
    tokenizer.eos_token = None
    blocks = language_blocks(Dataset.from_dict({"text": TEXTS}), tokenizer, 8, separated=False)
    joined = tokenizer("".join(TEXTS))["input_ids"]
    assert [token for block in blocks["input_ids"] for token in block] == joined[: len(joined) // 8 * 8]


def test_too_little_text():
    rows, tokenizer = Dataset.from_dict({"text": TEXTS}), train_bpe(TEXTS, 258)
    with pytest.raises(ValueError, match="less than one block of `block_size=512`"):
        language_blocks(rows, tokenizer, 512)
    with pytest.raises(ValueError, match="`block_size` should be at least 2"):
        language_blocks(rows, tokenizer, 1)
    tokenizer.eos_token = None
    with pytest.raises(ValueError, match="neither an `eos_token` nor a `sep_token`"):
        language_blocks(rows, tokenizer, 8)
