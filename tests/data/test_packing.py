"""PackingCollator: documents in one row, positions that begin anew, no label across a bound."""

import pytest
import torch
from datasets import Dataset

from hf_transfer.data import PackingCollator
from tests import tiny
from tests.data.text_tokenizers import byte_level, sentence_piece


def test_a_batch_is_one_row():
    batch = PackingCollator(byte_level())([{"input_ids": [5, 6, 7]}, {"input_ids": [8, 1]}, {"input_ids": [9]}])
    assert set(batch) == {"input_ids", "position_ids", "labels"}
    assert batch["input_ids"].tolist() == [[5, 6, 7, 1, 8, 1, 9, 1]]
    assert batch["position_ids"].tolist() == [[0, 1, 2, 3, 0, 1, 0, 1]]
    assert batch["labels"].tolist() == [[-100, 6, 7, 1, -100, 1, -100, 1]]


def test_documents_may_go_without_an_end():
    collator = PackingCollator(byte_level(), end_documents=False)
    batch = collator([{"input_ids": torch.tensor([5, 6, 0]), "attention_mask": torch.tensor([1, 1, 0])}])
    assert batch["input_ids"].tolist() == [[5, 6]]


def test_bad_input_is_refused():
    tokenizer = tiny.tokenizer()
    with pytest.raises(ValueError, match="`end_documents` needs the tokenizer's `eos_token`"):
        PackingCollator(tokenizer)
    PackingCollator(tokenizer, end_documents=False)
    rows = Dataset.from_dict({"input_ids": [[0, 7, 2], [0, 2], [0, 7, 8, 2]]})
    with pytest.raises(ValueError, match="has fewer than 1 tokens of text in row 1 "):
        PackingCollator(sentence_piece()).check_rows(rows, "training")
    with pytest.raises(ValueError, match="has fewer than 2 tokens of text in row 0, 1 "):
        PackingCollator(sentence_piece(), end_documents=False).check_rows(rows, "training")
