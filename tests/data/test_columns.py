import numpy as np
from datasets import ClassLabel, Dataset

from hf_transfer.data.columns import format_of, replace_column


def double(rows):
    return {"label": [2 * label for label in rows["label"]]}


def test_a_column_is_replaced_and_the_format_stays():
    rows = Dataset.from_dict({"place": [0, 1], "label": [0, 1]}).cast_column("label", ClassLabel(names="ab"))
    for form in ({"type": None}, {"type": "numpy"}, {"type": "torch"}, {"type": "custom", "transform": double}):
        changed = replace_column(rows.with_format(**form), "label", np.array([5, -100]))
        assert format_of(changed) == form
        read = list(changed.with_format(None)["label"])
        assert read == [5, -100]
    assert list(replace_column(rows.with_transform(double), "label", np.array([5, 7]))["label"]) == [10, 14]


def test_a_column_is_added():
    rows = Dataset.from_dict({"label": [0, 1]}).with_format("numpy")
    changed = replace_column(rows, "domain", np.array([1, 0]))
    assert changed.column_names == ["label", "domain"]
    assert changed[:]["domain"].tolist() == [1, 0]
