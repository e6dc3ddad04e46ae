import logging
from dataclasses import replace

import pytest

from hf_transfer.domain_adaptation.two_domains import has_both_domains


@pytest.mark.parametrize(("num_source", "num_target", "expected"), [(3, 2, True), (3, 0, False), (0, 2, False)])
def test_it_counts_both_domains(make_view, num_source, num_target, expected):
    assert has_both_domains(make_view(num_source, num_target)) is expected


def test_a_batch_without_domains_is_an_error(make_view):
    with pytest.raises(ValueError, match="`domain` column"):
        has_both_domains(replace(make_view(), domain=None))


def test_statistics_need_two_rows_of_each(make_view):
    assert has_both_domains(make_view(2, 2), at_least=2)
    assert not has_both_domains(make_view(5, 1), at_least=2)


def test_too_few_rows_are_told(make_view, caplog):
    logger = logging.getLogger("transformers")
    logger.addHandler(caplog.handler)
    has_both_domains(make_view(5, 2), at_least=4)
    logger.removeHandler(caplog.handler)
    assert "A batch has 2 rows of one domain and 4 are needed" in caplog.text
