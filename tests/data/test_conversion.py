import pandas
import pytest
from datasets import Dataset, DatasetDict

from hf_transfer.data.conversion import as_dataset

ROWS = [{"text": "a", "label": 0}, {"text": "b", "label": 1}]


@pytest.fixture
def rows():
    return Dataset.from_list(ROWS)


def test_what_holds_rows_is_converted(rows):
    frame = pandas.DataFrame(ROWS, index=[7, 9]).astype({"text": "category"})
    for given in (rows, DatasetDict(train=rows, test=rows), DatasetDict(other=rows), frame, ROWS, rows.to_dict()):
        found = as_dataset(given, "train_dataset")
        assert found.column_names == ["text", "label"] and found.to_list() == ROWS
    assert as_dataset(rows, "train_dataset") is rows


def test_a_split_of_several_is_asked_for(rows):
    splits = DatasetDict(a=rows, b=rows)
    assert as_dataset(splits, "eval_dataset", ("validation", "b")) is splits["b"]
    with pytest.raises(ValueError, match=r"`eval_dataset` has the splits \['a', 'b'\]: give one, `dataset\['a'\]`"):
        as_dataset(splits, "eval_dataset")


def test_what_cannot_be_read_says_what_to_do(rows):
    for given, message in (
        (rows.to_iterable_dataset(), "an IterableDataset, .*streaming=True"),
        ([rows, rows], "a list of 2 datasets: join them by `datasets.concatenate_datasets`"),
        ("rows.csv", "should be a datasets.Dataset .* got str"),
        ([], "got list"),
        (None, "got NoneType"),
    ):
        with pytest.raises(TypeError, match=message):
            as_dataset(given, "train_dataset")
