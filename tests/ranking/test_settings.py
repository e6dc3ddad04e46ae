import pytest

from hf_transfer.ranking import KNN, SCORES
from hf_transfer.ranking.registry import score_class
from hf_transfer.ranking.settings import RankSettings


def test_every_score_can_be_made():
    for name in SCORES:
        settings = RankSettings(score=name)
        assert isinstance(settings.new_score(), score_class(name))
        assert settings.reads_head == (name in ("leep", "nce"))


def test_options_reach_the_score():
    score = RankSettings(score="knn", score_options={"k": 9}).new_score()
    assert isinstance(score, KNN) and score.k == 9
    with pytest.raises(TypeError, match="neighbours"):
        RankSettings(score="knn", score_options={"neighbours": 9})


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"score": "logmee"}, "`score` should be one of"),
        ({"layers": "first"}, "`layers`"),
        ({"pooling": "median"}, "`pooling`"),
        ({"max_samples": 1}, "`max_samples`"),
        ({"dtype": "float12"}, "`dtype`"),
    ],
)
def test_wrong_values_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        RankSettings(**options)
