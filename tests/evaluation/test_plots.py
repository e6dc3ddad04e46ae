import numpy as np
import pytest
from matplotlib.axes import Axes
from PIL import Image

from hf_transfer.evaluation.plots import (
    Cloud,
    confusion_counts,
    embed,
    loss_series,
    plot_confusion,
    plot_domains,
    plot_losses,
)

pytestmark = pytest.mark.usefixtures("drawn")

HISTORY = [
    {"step": 1, "loss": 2.0, "loss_task": 1.5, "learning_rate": 0.1},
    {"step": 1, "eval_loss": 9.0},
    {"step": 2, "loss": "1.0", "loss_task": 0.75},
]


def is_picture(path) -> bool:
    """A picture of more than one colour."""
    return len(Image.open(path).convert("RGB").getcolors(1 << 24)) > 1


def test_training_losses_alone_are_drawn(tmp_path):
    assert loss_series(HISTORY) == {"loss": [(1, 2.0), (2, 1.0)], "loss_task": [(1, 1.5), (2, 0.75)]}
    assert plot_losses(HISTORY, tmp_path / "losses.png") and is_picture(tmp_path / "losses.png")
    assert not plot_losses([{"step": 1, "eval_loss": 1.0}], tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_two_principal_components_keep_the_distances_of_a_plane():
    generator = np.random.default_rng(0)
    plane = generator.normal(size=(20, 2))
    turned = plane @ np.linalg.qr(generator.normal(size=(6, 2)))[0].T + 3.0
    places = embed(turned, "pca")
    assert np.allclose(
        np.linalg.norm(places[:, None] - places, axis=-1), np.linalg.norm(plane[:, None] - plane, axis=-1)
    )
    assert embed(turned[:, :1]).shape == (20, 2)


@pytest.mark.parametrize("method", ["pca", "tsne"])
def test_both_domains_before_and_after(tmp_path, method):
    generator = np.random.default_rng(0)
    cloud = Cloud(generator.normal(size=(12, 4)), np.arange(12) % 3, np.repeat([0, 1], 6))
    plot_domains({"before": cloud, "after": cloud}, tmp_path / "domains.png", method)
    assert is_picture(tmp_path / "domains.png")


@pytest.mark.parametrize("kind, palette", [(int, "tab20"), (float, "viridis")])
def test_a_prediction_has_the_same_colour_everywhere(tmp_path, monkeypatch, kind, palette):
    drawn, scatter = [], Axes.scatter
    monkeypatch.setattr(Axes, "scatter", lambda *given, **how: drawn.append(scatter(*given, **how)) or drawn[-1])
    cloud = Cloud(np.arange(12.0).reshape(6, 2), np.array([0, 1, 2, 1, 2, 3], dtype=kind), np.repeat([0, 1], 3))
    plot_domains({"before": cloud, "after": cloud}, tmp_path / "domains.png")
    coloured = [one for one in drawn if one.get_array() is not None]
    assert len(coloured) == 4 and {one.get_cmap().name for one in coloured} == {palette}
    for one in coloured:
        assert one.to_rgba(2) == coloured[0].to_rgba(2) != one.to_rgba(1)


def test_a_confusion_matrix_counts_labelled_rows(tmp_path):
    counts = confusion_counts(np.array([0, 0, 1, -100, 2]), np.array([0, 1, 1, 2, 0]), 3)
    assert counts.tolist() == [[1, 1, 0], [0, 1, 0], [1, 0, 0]]
    plot_confusion({"source": counts, "target": counts}, ["a", "b", "c"], tmp_path / "confusion.png")
    assert is_picture(tmp_path / "confusion.png")


def test_a_confusion_matrix_shows_its_numbers_and_an_embedding_names_its_colours(tmp_path, monkeypatch):
    written, labels = [], []
    text, legend = Axes.text, Axes.legend
    monkeypatch.setattr(Axes, "text", lambda self, x, y, s, **how: written.append(s) or text(self, x, y, s, **how))

    def named(self, *args, **how):
        made = legend(self, *args, **how)
        labels.append([one.get_text() for one in made.get_texts()])
        return made

    monkeypatch.setattr(Axes, "legend", named)
    plot_confusion({"test": np.array([[7, 1], [0, 12]])}, ["cat", "dog"], tmp_path / "confusion.png")
    assert written == ["7", "1", "0", "12"]
    features = np.random.default_rng(0).normal(size=(8, 3))
    before = Cloud(features, np.array([0, 1, 0, 1, -1, -1, -1, -1]), np.repeat([0, 1], 4), kind="labels of the source")
    after = Cloud(features, np.arange(8) % 2, np.repeat([0, 1], 4))
    plot_domains({"before": before, "after": after}, tmp_path / "domains.png", names=["cat", "dog"])
    assert labels == [["source", "target"], ["cat", "dog"]]
