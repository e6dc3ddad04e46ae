import pytest

from hf_transfer.data.bpe import train_bpe
from tests import tiny


def test_every_text_comes_back():
    tokenizer = train_bpe([text for text, _ in tiny.SENTENCES], 300)
    assert 258 < len(tokenizer) <= 300
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    for text in (tiny.SENTENCES[0][0], "naïve 漢字\n\n🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_a_vocabulary_without_room_for_bytes():
    with pytest.raises(ValueError, match="at least 258"):
        train_bpe(["a"], 257)
