import dataclasses
import json
from dataclasses import replace

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
    assert sentences[0] == "high has a higher LogME than middle (probability above 0.999)."
    assert sentences[1].startswith("middle has a higher LogME than low (probability 0.9")
    assert "the drawing of the rows for LogME alone, not whether a higher LogME means a better model" in sentences[2]
    assert sentences[3:] == ["gone was not scored: There is no such | model."]


def test_near_scores_cannot_be_told_apart():
    first, second = make_row("a", 0.51, 0.4), replace(make_row("b", 0.5, -0.4), parameters=100)
    told = Ranking((first, second)).in_words()[0]
    assert told.startswith("a cannot be told from b by LogME with these data") and "b is the smaller one" in told


def test_equal_scores_favour_the_smaller_model():
    large, small = make_row("large", 0.5, 0.1), replace(make_row("small", 0.5, 0.1), parameters=100)
    ranking = Ranking((large, small))
    assert ranking.best.model == "small"
    assert ranking.in_words()[0] == "small and large have the same LogME (the smaller model first)."


def with_knn(row, *values):
    return replace(row, others={"knn": {layer: Score(value, 0.1) for layer, value in enumerate(values)}})


def test_scores_that_disagree_are_told():
    one, two = with_knn(make_row("random", 0.9, 0.1), 0.6, 0.7), with_knn(make_row("trained", 0.1, 0.1), 0.99, 0.8)
    ranking = Ranking((one, two))
    assert ranking.scores == ("logme", "knn") and ranking.values(two) == {"logme": 0.1, "knn": 0.99}
    assert ranking.agreements() == {("logme", "knn"): pytest.approx(-1)}
    told = "\n".join(ranking.in_words())
    assert "LogME and kNN accuracy -1.00" in told
    assert "The scores disagree about the first model (LogME: random; kNN accuracy: trained)" in told
    assert [row["knn"] for row in ranking.to_rows()] == [0.7, 0.99]
    assert "| knn (layer) |" in ranking.to_markdown() and "| 0.9900 (0) |" in ranking.to_markdown()
    assert Ranking.from_json(ranking.to_json()) == ranking
    agreeing = Ranking((with_knn(make_row("a", 0.9, 0.1), 0.9), with_knn(make_row("b", 0.1, 0.1), 0.8)))
    assert "Every score puts a first." in agreeing.in_words()


def test_random_weights_are_never_the_best():
    trained = replace(make_row("trained", 0.1, 0.1), architecture="x")
    random = replace(make_row("random weights of trained", 0.3, 0.1), architecture="x", is_baseline=True)
    ranking = Ranking((trained, random))
    assert ranking.rows[0].is_baseline and ranking.best.model == "trained" and ranking.top(2) == [ranking.rows[1]]
    assert "trained has no higher LogME than random weights of its architecture." in ranking.in_words()
    assert json.loads(ranking.to_json())["best"] == "trained"
    with pytest.raises(ValueError, match="No model could be scored"):
        _ = Ranking((random,)).best


def test_advice_before_adapting():
    deep = replace(
        make_row("deep", 0.9, 0.1), layer=0, layers={0: Score(0.9, 0.1, (0.8, 1.0)), 2: Score(0.1, 0.1, (0.0, 0.2))}
    )
    ranking = Ranking((deep, make_row("late", 0.5, 0.1)))
    first, second = ranking.advice_for_adapting()
    assert "deep has its best LogME at layer 0 (0.9000)" in first and "last layer, 2 (0.1000)" in first
    assert second == "By the last layer late has the highest LogME (0.5000)."
    assert Ranking((make_row("late", 0.5, 0.1),)).advice_for_adapting() == []


def test_rankings_saved_before_there_were_several_scores_still_load(ranking):
    body = json.loads(ranking.to_json())
    for row in body["rows"]:
        for name in ("others", "notes", "architecture", "is_baseline"):
            del row[name]
    assert Ranking.from_json(json.dumps(body)) == ranking


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


def test_a_narrow_terminal_has_fewer_columns_and_whole_names(ranking):
    name = "an-organisation/a-model-with-a-long-name-of-48-letters-x"
    rows = [dataclasses.replace(row, model=name) if row.model == "high" else row for row in ranking.rows]
    console = Console(width=70, record=True, file=open("/dev/null", "w"))  # noqa: SIM115
    dataclasses.replace(ranking, rows=rows).print(console)
    text = console.export_text()
    assert f" {name} " in text and "0.9000" in text
    assert "Left out for the width: seconds, P(> next)" in text


@pytest.mark.usefixtures("drawn")
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


@pytest.mark.parametrize(
    "text", ['{"score"', "[]", '{"score": "logme"}', '{"rows": [{"name": 1}], "score": "a", "settings": {}}']
)
def test_another_file_of_that_name(tmp_path, text):
    (tmp_path / "ranking.json").write_text(text)
    with pytest.raises(ValueError, match="is no ranking that `Ranking.save` wrote"):
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
