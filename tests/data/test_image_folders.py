import pytest
from PIL import Image

from hf_transfer.data.bundled import load_splits


def save(folder, *names):
    for place, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (2, 2), place).save(folder / name)
    return {
        split: (len(rows), rows.features["label"].names if "label" in rows.features else None)
        for split, rows in load_splits(str(folder)).items()
    }


def test_splits_are_no_classes(tmp_path):
    names = ["train/a.png", "train/b.png", "test/c.png"]
    assert save(tmp_path, *names) == {"train": (2, None), "test": (1, None)}


def test_splits_that_hold_classes(tmp_path):
    names = ["train/cat/a.png", "train/dog/b.png", "val/cat/c.png", "val/dog/d.png"]
    assert save(tmp_path, *names) == {"train": (2, ["cat", "dog"]), "validation": (2, ["cat", "dog"])}


@pytest.mark.parametrize("first", ["train", "test"])
def test_a_class_that_has_the_name_of_a_split_loses_no_rows(tmp_path, first):
    names = [f"{first}/a.png", "bus/b.png", "car/c.png"]
    assert save(tmp_path, *names) == {"train": (3, sorted([first, "bus", "car"]))}


def test_names_of_files_are_no_splits(tmp_path):
    names = ["cat/train_1.png", "cat/test_2.png", "dog/b.png", "dog/val.png"]
    assert save(tmp_path, *names) == {"train": (4, ["cat", "dog"])}


def test_pictures_without_folders_have_no_classes(tmp_path):
    assert save(tmp_path, "a.png", "test_b.png") == {"train": (2, None)}


def test_one_class_is_a_class(tmp_path):
    assert save(tmp_path, "cat/a.png", "cat/b.png") == {"train": (2, ["cat"])}
