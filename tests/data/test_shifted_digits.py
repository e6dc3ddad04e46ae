import numpy as np
import pytest
from sklearn.datasets import load_digits

from hf_transfer.data.bundled import BUNDLED, load
from hf_transfer.data.shifted_digits import coloured, environments, flipped, known_classes, of_shares, rotated


@pytest.fixture
def few_mnist(monkeypatch):
    """Twenty images of each digit in place of MNIST, whose reading takes seconds."""
    images = np.random.default_rng(0).integers(0, 256, (200, 28, 28)).astype(np.uint8)
    labels = np.repeat(np.arange(10), 20)
    monkeypatch.setattr("hf_transfer.data.bundled._mnist", lambda: (images, labels))
    return images, labels


def test_a_quarter_turn_is_counter_clockwise():
    images = np.random.default_rng(0).integers(0, 256, (3, 28, 28), dtype=np.uint8)
    turned = rotated(images, [0, 90, 180])
    for place, image in enumerate(turned):
        assert np.array_equal(image, np.rot90(images[place], place))


def test_environments_share_every_class():
    labels = np.repeat(np.arange(10), 20)
    numbers = environments(labels, 5, seed=0)
    for label in range(10):
        assert np.bincount(numbers[labels == label]).tolist() == [4] * 5
    assert np.array_equal(numbers, environments(labels, 5, seed=0))
    assert not np.array_equal(numbers, environments(labels, 5, seed=1))


def test_rotated_mnist(few_mnist):
    images, labels = few_mnist
    options = {"angles": [0, 90], "held_out": 180}
    train, test = (load("rotated_mnist", split, options=options) for split in ("train", "test"))
    assert (len(train), len(test)) == (140, 60) and "domain" not in test.column_names
    assert np.bincount(train["domain"][:]).tolist() == [70, 70]
    known = {image.tobytes(): place for place, image in enumerate(images)}
    seen = []
    for rows, turns in ((train.select(range(30)), None), (test.select(range(20)), 2)):
        for row in rows:
            turn = row["domain"] if turns is None else turns
            place = known[np.ascontiguousarray(np.rot90(np.asarray(row["image"]), -turn)).tobytes()]
            assert labels[place] == row["label"]
            seen.append(place)
    assert len(set(seen)) == len(seen), "no digit is in two environments"


def test_colours_and_flips():
    images = np.random.default_rng(0).integers(0, 256, (3, 4, 5), dtype=np.uint8)
    painted = coloured(images, np.array([0, 1, 0]))
    for place, channel in enumerate((1, 0, 1)):
        assert np.array_equal(painted[place, ..., channel], images[place])
        assert not np.delete(painted[place], channel, axis=-1).any()
    values = np.arange(4000) % 2
    changed = flipped(values, np.repeat([0.0, 0.3, 1.0, 0.8], 1000), np.random.default_rng(1)) != values
    shares = changed.reshape(4, 1000).mean(axis=1)
    assert shares[0] == 0 and shares[2] == 1 and shares[[1, 3]] == pytest.approx([0.3, 0.8], abs=0.05)


def test_coloured_mnist(monkeypatch):
    digits = np.tile(np.arange(10), 150)
    images = np.random.default_rng(0).integers(1, 256, (1500, 28, 28)).astype(np.uint8)
    monkeypatch.setattr("hf_transfer.data.bundled._mnist", lambda: (images, digits))
    both = BUNDLED["coloured_mnist"]()
    train, test = both["train"], both["test"]
    assert (len(train), len(test)) == (1000, 500) and "domain" not in test.column_names
    assert train.features["label"].names == ["0 to 4", "5 to 9"]
    known = {image.reshape(28, 28).astype(np.uint8).tobytes(): digit for image, digit in zip(images, digits)}
    domains = np.array(train["domain"][:])
    parts = [(train.select(np.flatnonzero(domains == 0)), 0.1), (train.select(np.flatnonzero(domains == 1)), 0.2)]
    for rows, exchanged in [*parts, (test, 0.9)]:
        assert len(rows) == 500
        pixels, labels = np.stack([np.asarray(image) for image in rows["image"]]), np.array(rows["label"][:])
        red = pixels[..., 0].any(axis=(1, 2))
        shapes = np.array([known[image.tobytes()] >= 5 for image in pixels.max(axis=-1)])
        assert (labels != shapes).mean() == pytest.approx(0.25, abs=0.06)
        assert (labels != red).mean() == pytest.approx(exchanged, abs=0.05)


def test_coloured_mnist_by_its_options(few_mnist):
    options = {"label_noise": 0.0, "held_out": 0.0, "flips": [0.5]}
    clean, again = (load("coloured_mnist", "test", options=options) for _ in range(2))
    assert len(clean) == 100 and again["label"][:] == clean["label"][:] and again[7]["image"] == clean[7]["image"]
    assert all(np.asarray(row["image"])[..., 0].any() == row["label"] for row in clean)
    assert load("coloured_mnist", "test", options={**options, "seed": 1})["image"] != clean["image"]


def test_the_label_of_a_turned_digit_is_its_angle(few_mnist):
    images, digits = few_mnist
    rows = load("mnist_angles", options={"largest": 40})
    assert rows["digit"][:] == digits.tolist()
    assert len(rows) == 200 and rows.features["label"].dtype == "float32"
    for place in (0, 77, 199):
        label = rows[place]["label"]
        assert -1 <= label <= 1
        again = rotated(images[place : place + 1], [40 * label])[0].astype(float)
        assert np.abs(np.asarray(rows[place]["image"]) - again).max() <= 1
    assert np.std(rows["label"][:]) == pytest.approx(1 / 3**0.5, rel=0.1)
    assert len(load("optical_angles")) == 1797


def test_unknown_digits_are_one_class():
    rows = load("optical_digits", options={"known_digits": 8})
    digits = load_digits().target
    assert rows.features["label"].names == ["0", "1", "2", "3", "4", "5", "6", "7", "unknown"]
    assert rows["label"][:] == np.minimum(digits, 8).tolist()
    known = load("optical_digits", options={"known_digits": 8, "keep_unknown": False})
    assert known["label"][:] == digits[digits < 8].tolist() and known.features == rows.features


@pytest.mark.parametrize("known_digits", [0, 10])
def test_there_are_known_and_unknown_digits(known_digits):
    with pytest.raises(ValueError, match="`known_digits` should be from 1 to 9"):
        known_classes(np.arange(10), known_digits, True)


def test_only_some_digits_of_ten_classes():
    rows = load("optical_digits", options={"only_below": 5})
    assert set(rows["label"]) == {0, 1, 2, 3, 4} and rows.features["label"].num_classes == 10
    whole = load("optical_digits")
    first = next(place for place, label in enumerate(whole["label"]) if label == 4)
    assert rows[4]["image"].tobytes() == whole[first]["image"].tobytes()  # the first five digits are 0 to 4


@pytest.mark.parametrize("options", [{"only_below": 1}, {"only_below": 10}, {"only_below": 5, "known_digits": 8}])
def test_some_digits_are_at_least_two_and_not_all(options):
    with pytest.raises(ValueError, match="`only_below` should be from 2 to 9 and without `known_digits`"):
        load("mnist5k", options=options)


@pytest.mark.parametrize("times, low, high", [(5, 180, 36), (0.2, 36, 180)])
def test_class_shares_that_differ(times, low, high):
    labels = np.array(load("optical_digits", options={"low_over_high": times})["label"])
    counts = np.bincount(labels, minlength=10)
    assert counts[:5] == pytest.approx(low, abs=6) and counts[5:] == pytest.approx(high, abs=6)


@pytest.mark.parametrize("times, message", [(0, "should be positive, got 0"), (1000, "leaves no row of the digit 5")])
def test_shares_that_leave_nothing_are_refused(times, message):
    with pytest.raises(ValueError, match=f"`low_over_high`.*{message}"):
        of_shares(np.arange(10).repeat(50), times)


def test_parity_is_of_the_digits(few_mnist):
    whole, parity = load("mnist5k"), load("mnist5k", options={"parity": True})
    assert parity.features["label"].names == ["even", "odd"]
    assert [digit % 2 for digit in whole["label"]] == list(parity["label"])
    with pytest.raises(ValueError, match="`parity` reads every digit"):
        load("mnist5k", options={"parity": True, "only_below": 5})
