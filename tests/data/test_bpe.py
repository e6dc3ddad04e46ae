import pytest
from transformers import AutoTokenizer

from hf_transfer.data.bpe import train_bpe
from tests import tiny


def test_every_text_comes_back():
    tokenizer = train_bpe([text for text, _ in tiny.SENTENCES], 300)
    assert 258 < len(tokenizer) <= 300
    assert (tokenizer.pad_token_id, tokenizer.eos_token_id) == (0, 1)
    for text in (tiny.SENTENCES[0][0], "naïve 漢字\n\n🙂"):
        assert tokenizer.decode(tokenizer(text)["input_ids"]) == text


def test_special_tokens_of_pretraining(tmp_path):
    tokenizer = train_bpe([text for text, _ in tiny.SENTENCES], 320, mask_token=True, sentinels=10)
    assert (tokenizer.mask_token_id, len(tokenizer)) == (2, 320)
    names = [f"<extra_id_{place}>" for place in range(10)]
    assert tokenizer.convert_tokens_to_ids(names) == list(range(319, 309, -1))
    tokenizer.save_pretrained(tmp_path)
    again = AutoTokenizer.from_pretrained(tmp_path)
    assert again.get_vocab() == tokenizer.get_vocab() and again.mask_token == "<mask>"
    assert set(again.all_special_ids) == {0, 1, 2, *range(310, 320)}


def test_numbers_out_of_range_are_refused():
    with pytest.raises(ValueError, match="at least 258"):
        train_bpe(["a"], 257)
    with pytest.raises(ValueError, match="at least 264 .256 bytes, special tokens., got 263"):
        train_bpe(["a"], 263, mask_token=True, sentinels=5)
    with pytest.raises(ValueError, match="`sentinels` should be at least 0, got -1"):
        train_bpe(["a"], sentinels=-1)
