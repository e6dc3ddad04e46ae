"""A table that names pictures is a data set of pictures."""

import csv

import numpy as np
import pytest
from datasets import Image, Value
from PIL import Image as PILImage

from hf_transfer.data.bundled import load


@pytest.fixture
def table(tmp_path):
    """Writes pictures 0.png to 3.png of one grey each, and a csv file with these rows beside them."""
    (tmp_path / "pictures").mkdir()
    for grey in range(4):
        PILImage.fromarray(np.full((4, 4), 60 * grey, dtype=np.uint8)).save(tmp_path / "pictures" / f"{grey}.png")

    def write(header: tuple[str, ...], rows: list[tuple]) -> str:
        with (tmp_path / "rows.csv").open("w", newline="") as file:
            csv.writer(file).writerows([header, *rows])
        return str(tmp_path / "rows.csv")

    return write


def test_relative_and_absolute_paths_are_read(table, tmp_path):
    absolute = str(tmp_path / "pictures" / "3.png")
    rows = load(table(("name", "picture", "label"), [("a", "pictures/2.png", "cat"), ("b", absolute, "dog")]))
    assert rows.column_names == ["name", "picture", "label"]
    assert isinstance(rows.features["picture"], Image) and isinstance(rows.features["name"], Value)
    assert [np.asarray(picture)[0, 0] for picture in rows["picture"]] == [120, 180]
    assert rows["label"][:] == ["cat", "dog"]


def test_a_picture_that_is_not_there_is_named_with_its_row(table):
    path = table(("picture", "label"), [("pictures/0.png", "a"), ("pictures/9.png", "b")])
    with pytest.raises(ValueError, match=r"row 1.*`pictures/9.png`.*no file .*paths start where the table lies"):
        load(path)


def test_a_text_that_speaks_of_a_file_stays_a_text(table):
    rows = load(table(("text", "label"), [("see pictures/0.png", "a"), ("nothing to see", "b")]))
    assert isinstance(rows.features["text"], Value)


def test_a_table_of_paths_alone(table):
    rows = load(table(("picture",), [("pictures/1.png",)]))
    assert np.asarray(rows["picture"][0])[0, 0] == 60


def test_a_folder_of_tables_named_after_splits(table, tmp_path):
    folder = tmp_path / "tables"
    folder.mkdir()
    for name, count in (("train", 3), ("test", 2)):
        (folder / f"{name}.csv").write_text("text,label\n" + "good,1\n" * count)
    assert len(load(str(folder))) == 3 and len(load(str(folder), "test")) == 2
    (folder / "more.csv").write_text("text,label\ngood,1\n")
    with pytest.raises(ValueError, match=r"holds the files \['more.csv', .*name one of them, or call each"):
        load(str(folder))


def test_one_table_of_any_name_is_the_training_split(tmp_path):
    (tmp_path / "reviews.csv").write_text("text,label\ngood,1\nbad,0\n")
    assert len(load(str(tmp_path))) == 2
