import pytest

from hf_transfer.ranking import KNN, SCORES
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.settings import RankSettings


def test_every_score_can_be_made():
    for name in SCORES:
        settings = RankSettings(score=name)
        assert isinstance(settings.new_scores()[name], score_class(name))
        assert settings.reads_head == (name in ("leep", "nce"))


def test_options_reach_the_score():
    score = RankSettings(score="knn", score_options={"k": 9}).new_scores()["knn"]
    assert isinstance(score, KNN) and score.k == 9
    several = RankSettings(score_options={"knn": {"k": 9}, "logme": {"shards": 4}}).new_scores()
    assert list(several) == ["logme", "knn", "linear_probe"]
    assert (several["knn"].k, len(several["logme"].shards), len(several["linear_probe"].shards)) == (9, 4, 10)
    first = RankSettings(score_options={"shards": 4}).new_scores()
    assert [len(score.shards) for score in first.values()] == [4, 10, 10]
    with pytest.raises(TypeError, match="neighbours"):
        RankSettings(score="knn", score_options={"neighbours": 9})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "logmee"}, "`score` should be one of"),
        ({"score": ("knn", "knn")}, "a list of different names"),
        ({"score": ()}, "a list of different names"),
        ({"score": ("logme", "leep")}, "rank by each kind in a call of its own"),
        ({"layers": "first"}, "`layers`"),
        ({"pooling": "median"}, "`pooling`"),
        ({"max_samples": 1}, "`max_samples`"),
        ({"dtype": "float12"}, "`dtype`"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RankSettings(**options)
