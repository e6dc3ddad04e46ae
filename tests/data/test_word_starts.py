"""Which tokens are one word, by the mark of the vocabulary or by offsets."""

import numpy as np
import pytest
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from hf_transfer.data.word_starts import words_of
from tests import tiny
from tests.data.text_tokenizers import KINDS

TEXT = "Miss Taylor married the circulation of the telescope"


def grouped(tokenizer, text: str, **keywords) -> list[str]:
    """The text of each word."""
    read = tokenizer(text, return_offsets_mapping=True)
    tokens = np.array(read["input_ids"])
    special = np.isin(tokens, tokenizer.all_special_ids)
    offsets = read["offset_mapping"] if keywords.get("by_offsets") else None
    words = words_of(tokenizer, tokens, special, offsets)
    assert (words[special] == -1).all() and sorted(set(words[~special])) == list(range(words.max() + 1))
    bounds = [np.array(read["offset_mapping"])[words == number] for number in range(words.max() + 1)]
    return [text[word[0, 0] : word[-1, 1]].strip() for word in bounds]


@pytest.mark.parametrize(
    ("kind", "by_offsets"),  # offsets of the other two take the blank in, and leave no gap
    [*((kind, False) for kind in KINDS), ("word pieces", True)],
)
def test_words_are_those_between_blanks(kind, by_offsets):
    tokenizer = KINDS[kind]()
    wanted = TEXT.split()
    assert grouped(tokenizer, TEXT, by_offsets=by_offsets) == wanted
    assert len(tokenizer(TEXT)["input_ids"]) > len(wanted) + 2


def test_a_break_of_line_ends_a_word():
    assert grouped(KINDS["bytes"](), "Emma\nAlice") == ["Emma", "", "Alice"]


def test_a_tokenizer_of_words_has_one_token_a_word():
    text = "There was nothing so very remarkable in that"
    assert grouped(tiny.tokenizer(), text) == text.split()


def test_a_vocabulary_without_marks_is_refused():
    characters = Tokenizer(models.BPE({letter: place for place, letter in enumerate("abc")}, []))
    characters.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=characters)
    with pytest.raises(ValueError, match="marks no words: none of its 3 tokens starts with one of"):
        words_of(tokenizer, np.array([0, 1]), np.zeros(2, dtype=bool))
    words = words_of(tokenizer, np.array([0, 1, 2]), np.zeros(3, dtype=bool), [(0, 1), (1, 2), (3, 4)])
    assert words.tolist() == [0, 0, 1]
