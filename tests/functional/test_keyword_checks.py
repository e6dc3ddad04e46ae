import pytest

from hf_transfer.functional.keyword_checks import require_non_negative, require_positive, require_share


@pytest.mark.parametrize(
    ("check", "accepted", "refused", "text"),
    [
        (require_positive, [1e-9, 3], [0, -1, float("nan")], "`size` should be positive, got"),
        (require_non_negative, [0, 3], [-1e-9, float("nan")], "`size` should be at least 0, got"),
        (require_share, [0, 0.999], [1, -0.1, float("nan")], r"`size` should be in \[0, 1\), got"),
    ],
)
def test_the_boundaries(check, accepted, refused, text):
    for value in accepted:
        check(size=value)
    for value in refused:
        with pytest.raises(ValueError, match=text):
            check(other=0.5, size=value)
