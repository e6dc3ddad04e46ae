import pytest
import torch

from hf_transfer.hub import HubError
from hf_transfer.ranking.scorer import Outcome, explain, labelled_rows, on_device, shared_facts


def test_tokens_become_rows_and_ignored_labels_go():
    features = torch.arange(12.0).reshape(2, 3, 2)
    labels = torch.tensor([[0, -100, 1], [2, -100, -100]])
    places = torch.tensor([7, 4])
    rows, known, theirs = labelled_rows(features, labels, places, is_per_token=True)
    assert rows.tolist() == [[0, 1], [4, 5], [6, 7]] and known.tolist() == [0, 1, 2] and theirs.tolist() == [7, 7, 4]
    rows, known, theirs = labelled_rows(features[:, 0], torch.tensor([-100, 3]), places, is_per_token=False)
    assert rows.tolist() == [[6, 7]] and known.tolist() == [3] and theirs.tolist() == [4]


def test_values_and_several_labels_are_kept_and_unknown_ones_go():
    features, places = torch.zeros(3, 3), torch.arange(3)
    for labels in (torch.tensor([-100.0, 1.0, -2.0]), torch.tensor([[-100, -100], [1, 0], [0, 1]])):
        _, known, theirs = labelled_rows(features, labels, places, is_per_token=False)
        assert known.tolist() == labels[1:].tolist() and theirs.tolist() == [1, 2]


def test_facts_of_two_processes():
    first = Outcome({}, None, {"rows": 10, "batch_size": 32, "seconds_load": 1.0, "revision": "a"})
    second = Outcome({}, None, {"rows": 5, "batch_size": 64, "seconds_load": 2.0, "revision": "a"})
    expected = {"rows": 15, "batch_size": 32, "seconds_load": 2.0, "revision": "a"}
    assert shared_facts([first, second]) == expected


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ValueError("It has no tokenizer.\nTraceback"), "It has no tokenizer."),
        (KeyError("qwen99"), "KeyError: 'qwen99'"),
        (torch.OutOfMemoryError("CUDA out of memory. Tried"), "Out of memory even with one row at a time."),
        (MemoryError(), "Out of memory even with one row at a time."),
        (HubError("Pulling 'a/b' failed: it is gated."), "Pulling 'a/b' failed: it is gated."),
        (AssertionError(), "AssertionError: AssertionError"),
    ],
)
def test_one_line_on_what_went_wrong(error, reason):
    assert explain(error, "a/b") == reason


def test_floating_inputs_take_the_models_precision():
    model = torch.nn.Linear(2, 2).bfloat16()
    moved = on_device({"pixel_values": torch.zeros(1, 2), "input_ids": torch.zeros(1, 2, dtype=torch.long)}, model)
    assert moved["pixel_values"].dtype == torch.bfloat16 and moved["input_ids"].dtype == torch.long
