"""Texts and pairs of texts from files."""

from datasets import Dataset

from hf_transfer.data.text_columns import find_text_columns
from hf_transfer.runs.arguments import DataArguments
from hf_transfer.runs.data import load_data


def test_a_pair_has_the_order_of_the_training_rows(tmp_path):
    columns = {
        "premise": [f"it is {n} now" for n in range(8)],
        "hypothesis": [f"so it was {n * 3 % 8} then" for n in range(8)],
        "label": [0, 1] * 4,
    }
    first, other = str(tmp_path / "first.csv"), str(tmp_path / "other.csv")
    Dataset.from_dict(columns).to_csv(first, index=False)
    Dataset.from_dict({name: columns[name] for name in ("hypothesis", "label", "premise")}).to_csv(other, index=False)
    data = load_data(DataArguments(first, target_dataset=other, test_dataset=other))
    for rows in (data.train, data.target, data.test):
        assert find_text_columns(rows) == ["premise", "hypothesis"]
        assert rows["premise"][3] == "it is 3 now" and rows["hypothesis"][3] == "so it was 1 then"
