"""The models of the rankings' tests."""

from tests.ranking.conftest import one_thread, raw_digits, reviews, zoo  # noqa: F401
