"""Pieces of a lifecycle by themselves: the search, rows that are held out, what is kept on disk, charts."""

from __future__ import annotations

import math
import shutil
from collections import Counter
from xml.etree import ElementTree

import numpy as np
import pytest
from datasets import Dataset
from transformers import AutoConfig

from hf_transfer.core.task_loss import SINGLE_LABEL
from hf_transfer.runs.lifecycle.outputs import outputs_on
from hf_transfer.runs.lifecycle.report import charts
from hf_transfer.runs.lifecycle.rows import hold_out
from hf_transfer.runs.lifecycle.search import halve, rounds_of
from hf_transfer.runs.lifecycle.store import Store, differences
from hf_transfer.runs.lifecycle.training import DEFAULTS, steps_of
from tests import tiny


def naive_halving(scores: dict[int, float], steps: int) -> tuple[int, int]:
    """The setting that is left and all steps taken, written a second time."""
    left, total, rounds = sorted(scores), 0, math.ceil(math.log2(len(scores))) if len(scores) > 1 else 0
    for number in range(rounds):
        total += len(left) * max(1, round(steps / 2 ** (rounds - number)))
        best_first = sorted(left, key=lambda place: (-scores[place], place))
        left = sorted(best_first[: (len(left) + 1) // 2])
    return left[0], total


@pytest.mark.parametrize("count", [1, 2, 3, 4, 7, 8])
def test_halving_keeps_the_better_half_for_twice_as_long(count):
    scores = dict(enumerate(np.random.default_rng(count).permutation(count).tolist()))
    settings = [{"learning_rate": place} for place in range(count)]
    chosen, trials = halve(settings, lambda _: 80, lambda setting, _: scores[setting["learning_rate"]])
    expected, total = naive_halving(scores, 80)
    assert chosen == settings[expected] and scores[expected] == max(scores.values())
    assert sum(trial["steps"] for trial in trials) == total == sum(n * steps for n, steps in rounds_of(count, 80))
    assert len(trials) == sum(n for n, _ in rounds_of(count, 80))


def test_equal_scores_favour_the_earlier_and_what_diverges_is_out():
    settings = [{"x": place} for place in range(3)]
    assert halve(settings, lambda _: 8, lambda setting, _: 0.5)[0] == {"x": 0}
    assert halve(settings, lambda _: 8, lambda setting, _: None if setting["x"] < 2 else -1.0)[0] == {"x": 2}
    with pytest.raises(ValueError, match="every training of the search diverged"):
        halve(settings, lambda _: 8, lambda *_: None)


def test_rows_are_held_out_evenly_over_the_classes():
    labels = [0] * 40 + [1] * 40 + [2] * 20
    rows = Dataset.from_dict({"labels": labels, "place": list(range(100))})
    left, held = hold_out(rows, 20, "test")
    assert Counter(held["labels"]) == {0: 8, 1: 8, 2: 4}
    assert sorted([*left["place"], *held["place"]]) == list(range(100))
    assert list(hold_out(rows, 20, "test")[1]["place"]) == list(held["place"])
    assert list(hold_out(rows, 20, "test", seed=1)[1]["place"]) != list(held["place"])
    with pytest.raises(ValueError, match="99 test rows cannot be held out of 100"):
        hold_out(rows, 99, "test")


def test_rows_of_several_numbers_are_held_out_at_random():
    numbers = np.random.default_rng(0).normal(size=(30, 2))
    left, held = hold_out(Dataset.from_dict({"labels": numbers.tolist()}), 6, "test")
    assert sorted(left["labels"][:] + held["labels"][:]) == sorted(numbers.tolist()) and len(held) == 6
    one = Dataset.from_dict({"labels": [[float(place)] for place in range(30)]})
    held = np.array(hold_out(one, 6, "test")[1]["labels"][:])[:, 0]
    assert (held // 5 == np.arange(6)).all(), "evenly over a single number"


def test_steps_follow_from_rows_epochs_or_what_is_given():
    assert steps_of(DEFAULTS, 50) == 100 and steps_of(DEFAULTS, 16_000) == 3000
    assert steps_of({**DEFAULTS, "num_train_epochs": 2}, 50) == 8
    assert steps_of({**DEFAULTS, "num_train_epochs": 2, "max_steps": 5}, 50) == 5


def test_a_piece_is_found_by_what_it_depends_on(tmp_path):
    store = Store(tmp_path / "out")
    depends = {"settings": {"learning_rate": 0.1, "names": ("a",)}}
    assert store.find("training", depends) is None and store.changes("training", depends) == []
    assert store.keep("training", depends, {"score": 1.0, "pair": (1, 2)}) == {"score": 1.0, "pair": [1, 2]}
    assert Store(tmp_path / "out").find("training", depends)["score"] == 1.0
    other = {"settings": {"learning_rate": 0.2, "names": ("a",)}}
    assert store.find("training", other) is None and store.folder("training", other) != store.folder(
        "training", depends
    )
    assert store.changes("training", other) == ["settings.learning_rate 0.1 -> 0.2"]
    assert differences({"a": 1}, {"b": {"c": 2}}) == ["a 1 -> None", "b None -> {'c': 2}"]


def test_results_of_a_folder_that_was_moved_name_it_as_it_is(tmp_path):
    kept = {"folder": str(tmp_path / "out" / "rows"), "other": str(tmp_path / "outer"), "names": {}, "rows": 3}
    kept["names"][str(tmp_path / "out" / "rows" / "train")] = "a.csv"
    assert Store(tmp_path / "out").keep("data", {}, kept) == Store(tmp_path / "out").find("data", {}) == kept
    (tmp_path / "out").rename(tmp_path / "moved")
    found = Store(tmp_path / "moved").find("data", {})
    rows = str(tmp_path / "moved" / "rows")
    assert found == {**kept, "folder": rows, "names": {f"{rows}/train": "a.csv"}}


def test_a_folder_of_other_things_is_refused(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(FileExistsError, match="holds no lifecycle"):
        Store(tmp_path)
    with pytest.raises(FileExistsError, match="is a file"):
        Store(tmp_path / "thesis.txt")


def test_charts_are_whole_and_say_what_they_are_given():
    root = ElementTree.fromstring(charts.dots([("a<b", 1.0, 0.5), ("c", -1.0, None), ("d", 0.5, 0.0)], "LogME"))
    first, second, third = (float(one.get("cx")) for one in root.iter() if one.tag == "circle")
    # 1, -1 and 0.5 between -1 and 1.5
    assert (first - second) / 2 == pytest.approx((third - second) / 1.5, abs=0.1)
    (bar, _) = [one.get("d") for one in root.iter() if one.get("class") == "error"]
    start, end = (float(part.split()[0]) for part in (bar[1:], bar.split("H")[1].replace("M", " ")))
    assert (start + end) / 2 == pytest.approx(first, abs=0.1) and end - start == pytest.approx(
        first - third + first - third, abs=0.2
    )
    curve = charts.lines({"x": [[1, 2.0], [2, math.nan], [4, 1.0]]}, "step", "loss")
    assert "nan" not in curve and curve.count("<li>") == 1
    assert charts.lines({"x": []}, "step", "loss") == ""
    points = charts.scatter([[0, 0], [1, 1]], ["a", "b"], ["a", "b"], "before")
    assert points.count("<circle") == 2 and 'class="c1"' in points
    matrix = charts.confusion(["a", "b"], [[3, 1], [0, 0]])
    assert "--share:75%" in matrix and "--share:25%" in matrix


def test_rows_to_measure_on_are_read_by_the_texts_of_the_training(here):
    texts, books = zip(*tiny.SENTENCES)
    plain = Dataset.from_dict({"text": texts, "label": books})
    noted = plain.add_column("note", list(texts[1:] + texts[:1]))
    shutil.copytree(here / "bert", here / "own")  # `bert` is a link to what other tests read
    config = AutoConfig.from_pretrained("own")
    config.text_columns = ["text"]
    config.save_pretrained("own")
    settings = {"problem_type": SINGLE_LABEL, "use_cpu": True}
    told = [outputs_on("own", rows, settings).logits for rows in (plain, noted)]
    assert np.allclose(*told, atol=1e-6)
