import torch

from hf_transfer.data.collators import PaddingCollator


def test_series_are_padded_and_masked():
    rows = [{"past_values": [[1.0, 2.0]], "label": 3}, {"past_values": [[1.0, 2.0], [3.0, 4.0]], "label": 0}]
    batch = PaddingCollator("past_values")(rows)
    assert batch["past_values"].tolist() == [[[1, 2], [0, 0]], [[1, 2], [3, 4]]]
    assert batch["attention_mask"].tolist() == [[1, 0], [1, 1]] and batch["labels"].tolist() == [3, 0]


def test_tokens_are_padded_with_the_padding_token():
    batch = PaddingCollator("input_ids", 9)([{"input_ids": [1]}, {"input_ids": [2, 3]}])
    assert batch["input_ids"].tolist() == [[1, 9], [2, 3]] and batch["input_ids"].dtype == torch.long
    assert "labels" not in batch
