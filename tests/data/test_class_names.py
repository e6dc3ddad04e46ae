import pytest
from datasets import ClassLabel, Dataset

from hf_transfer.data.class_names import check_label_spaces


def named_rows(names: str) -> Dataset:
    return Dataset.from_dict({"label": [0]}).cast_column("label", ClassLabel(names=list(names)))


@pytest.mark.parametrize(
    "source, target, made_for, message",
    [
        ("abc", "cab", (), None),
        ("abc", "ab", (), "lacks classes of the source: c. That is partial domain adaptation: use pada or iwan"),
        ("abc", "ab", {"closed", "partial"}, None),
        ("ab", "abc", (), "has classes that the source lacks: c. That is open-set domain adaptation: use osbp"),
        ("ab", "abc", {"open"}, None),
        ("ab", "bc", (), "also has classes that the source lacks: c"),
        ("ab", "bc", {"partial"}, "open-set"),
    ],
)
def test_classes_of_source_and_target(source, target, made_for, message):
    if message is None:
        check_label_spaces(named_rows(source), named_rows(target), made_for)
        return
    with pytest.raises(ValueError, match=message):
        check_label_spaces(named_rows(source), named_rows(target), made_for)


def test_without_names_there_is_nothing_to_compare():
    numbers = Dataset.from_dict({"label": [7]})
    check_label_spaces(numbers, named_rows("ab"))
    check_label_spaces(named_rows("ab"), numbers)
    check_label_spaces(named_rows("ab"), Dataset.from_dict({"text": ["a"]}))
