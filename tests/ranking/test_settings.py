import pytest

from hf_transfer.ranking import KNN, SCORES
from hf_transfer.ranking.settings import RankSettings


def test_every_score_can_be_made():
    for name in SCORES:
        score = RankSettings(score=name).new_score(7)
        assert score.next_row == 7 and RankSettings(score=name).reads_head == (name in ("leep", "nce"))


def test_options_reach_the_score():
    score = RankSettings(score="knn", score_options={"k": 9}).new_score(0)
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
