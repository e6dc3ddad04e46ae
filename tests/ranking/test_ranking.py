import json

import pytest
from PIL import Image
from rich.console import Console

from hf_transfer.ranking import Ranking, RankingRow, Score


def make_row(name, value, spread, layers=(2,), **facts):
    replicates = tuple(value + spread * step for step in (-1.0, 0.0, 1.0))
    scores = {layer: Score(value - 0.1 * (2 - layer), spread, replicates) for layer in layers}
    return RankingRow(
        name, value, spread, layer=2, layers=scores, parameters=4_500_000, rows=30, seconds_features=1.5, **facts
    )


@pytest.fixture
def ranking():
    rows = (
        make_row("low", 0.1, 0.2),
        RankingRow("gone", reason="There is no such | model."),
        make_row("high", 0.9, 0.1, layers=(0, 1, 2)),
        make_row("middle", 0.5, 0.1),
    )
    return Ranking(rows, "logme", {"pooling": "mean"})


def test_best_first_failed_last(ranking):
    assert [row.model for row in ranking.rows] == ["high", "middle", "low", "gone"]
    assert ranking.best.model == "high"
    assert [row.model for row in ranking.top(2)] == ["high", "middle"]
    assert len(ranking.top(9)) == 3


def test_probabilities_in_words(ranking):
    chances = ranking.probability_of_beating_next()
    assert chances[0] == 1.0 and 0.5 < chances[1] < 1 and chances[2] is None
    sentences = ranking.in_words()
    assert sentences[0] == "high almost certainly beats middle (probability above 0.999)."
    assert sentences[1].startswith("middle very likely beats low (probability 0.9")
    assert sentences[2] == "gone was not scored: There is no such | model."


def test_near_scores_cannot_be_told_apart():
    first, second = make_row("a", 0.51, 0.4), make_row("b", 0.5, -0.4)
    assert "cannot be told from" in Ranking((first, second)).in_words()[0]


def test_markdown(ranking):
    lines = ranking.to_markdown().splitlines()
    assert lines[0].startswith("| rank | model | logme |")
    assert lines[2] == "| 1 | high | 0.9000 | 0.1000 | 1.000 | 2 | 4.5M | 1.5 |"
    assert lines[5].startswith("| - | gone | failed |")
    assert len({line.count("|") for line in lines[:6]}) == 1


def test_rows_and_terminal(ranking):
    rows = ranking.to_rows()
    assert [row["rank"] for row in rows] == [1, 2, 3, None]
    assert rows[0]["beats_next"] == 1.0 and "layers" not in rows[0]
    console = Console(width=120, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    ranking.print(console)
    text = console.export_text()
    assert "high" in text and "gone was not scored" in text


def test_saved_and_loaded(ranking, tmp_path):
    folder = ranking.save(tmp_path / "deep" / "ranking")
    loaded = Ranking.load(folder)
    assert loaded == ranking
    assert json.loads((folder / "ranking.json").read_text())["best"] == "high"
    assert (folder / "ranking.md").read_text() == ranking.to_markdown()
    for name in ("ranking.png", "layers.png"):
        with Image.open(folder / name) as picture:
            assert picture.width > 300
    with pytest.raises(FileNotFoundError, match="no ranking.json"):
        Ranking.load(tmp_path)


def test_one_layer_draws_no_heat_map(tmp_path):
    Ranking((make_row("a", 0.5, 0.1),)).save(tmp_path)
    assert not (tmp_path / "layers.png").exists() and (tmp_path / "ranking.png").exists()


def test_nothing_scored(tmp_path):
    ranking = Ranking((RankingRow("gone", reason="It is gated."),))
    with pytest.raises(ValueError, match="gone: It is gated."):
        _ = ranking.best
    assert ranking.save(tmp_path) and not (tmp_path / "ranking.png").exists()
    assert Ranking.load(tmp_path) == ranking
