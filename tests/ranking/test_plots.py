from dataclasses import replace

import pytest
from matplotlib.axes import Axes
from PIL import Image

from hf_transfer.ranking import RankingRow, Score
from hf_transfer.ranking.plots import plot_layers, plot_ranking, short_name

pytestmark = pytest.mark.usefixtures("drawn")


def make_rows(count):
    layers = {layer: Score(0.1 * layer, 0.01) for layer in range(3)}
    return [RankingRow(f"model{i}", 0.5, None, layer=2, layers=layers, parameters=10**i) for i in range(1, count + 1)]


def height(path):
    with Image.open(path) as picture:
        return picture.height


def test_figures_grow_with_the_models(tmp_path):
    for plot in (plot_ranking, plot_layers):
        plot(make_rows(1), "logme", tmp_path / "few.png")
        plot(make_rows(12), "logme", tmp_path / "many.png")
        assert height(tmp_path / "many.png") > height(tmp_path / "few.png") + 250


def test_every_score_has_a_panel(tmp_path, monkeypatch):
    """Three in a line; a model without one of them leaves a gap."""
    titles = []
    monkeypatch.setattr(Axes, "set_title", lambda self, title: titles.append(title))
    rows = make_rows(3)
    others = dict.fromkeys(("knn", "linear_probe"), rows[0].layers)
    rows = [replace(rows[0], others=others), replace(rows[1], others={"knn": rows[1].layers}), rows[2]]
    plot_ranking(rows, "logme", tmp_path / "ranking.png")
    assert titles == ["logme", "knn", "linear_probe", "parameters", "seconds"]
    titles.clear()
    plot_layers(rows, "logme", tmp_path / "layers.png")
    assert titles == ["logme", "knn", "linear_probe"]


def test_long_names_keep_their_end():
    assert short_name("lab/model") == "lab/model"
    assert short_name("x" * 100 + "-large") == "…" + "x" * 33 + "-large"
