import pytest
from datasets import Dataset

from hf_transfer.data.splits import scarce_split


@pytest.fixture
def rows() -> Dataset:
    """100 rows of four classes of 40, 30, 20 and 10 rows."""
    return Dataset.from_dict({"place": list(range(100)), "label": [0] * 40 + [1] * 30 + [2] * 20 + [3] * 10})


def test_the_parts_are_disjoint_and_together_everything(rows):
    split = scarce_split(rows, labels_per_class=2, test_rows=30, seed=1)
    parts = {name: list(part["place"]) for name, part in split.items()}
    assert {name: len(part) for name, part in parts.items()} == {"train": 8, "test": 30, "unlabelled": 62}
    assert sorted(parts["train"] + parts["test"] + parts["unlabelled"]) == list(range(100))


def test_every_class_has_its_rows(rows):
    train = scarce_split(rows, labels_per_class=3, test_rows=20)["train"]
    assert sorted(train["label"]) == [0] * 3 + [1] * 3 + [2] * 3 + [3] * 3


def test_the_seed_decides(rows):
    first, again, other = (list(scarce_split(rows, 2, 30, seed)["test"]["place"]) for seed in (0, 0, 1))
    assert first == again != other


def test_a_dataset_that_is_too_small_is_refused(rows):
    with pytest.raises(
        ValueError, match=r"class \d has \d+ rows outside the test split, fewer than labels_per_class=10"
    ):
        scarce_split(rows, labels_per_class=10, test_rows=50)
    with pytest.raises(ValueError, match=r"`test_rows` should be between 0 and 99, got 101"):
        scarce_split(rows, labels_per_class=0, test_rows=101)


def test_a_dataset_without_labels_is_refused(rows):
    with pytest.raises(ValueError, match="the given dataset has no label column"):
        scarce_split(rows.remove_columns("label"), 1, 10)
