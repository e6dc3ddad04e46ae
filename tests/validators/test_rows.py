import numpy as np
import pytest
import torch

from hf_transfer.validators.rows import labelled_source, split_halves, target_rows


def test_rows_are_selected_by_domain():
    values, domain = torch.arange(4), torch.tensor([0, 1, 1, 0])
    assert target_rows(values, domain).tolist() == [1, 2]
    assert target_rows(values, None).tolist() == [0, 1, 2, 3]
    assert labelled_source(domain, torch.tensor([2, 1, -100, -100])).tolist() == [True, False, False, False]
    pairs = torch.tensor([[2.0, 1.0], [1.0, -100.0], [0.5, 0.5], [0.0, 1.0]])
    assert labelled_source(torch.tensor([0, 0, 1, 0]), pairs).tolist() == [True, False, False, True]


def test_halves_are_of_each_domain_and_repeatable():
    domain = np.array([0] * 6 + [1] * 4)
    half = split_halves(domain, seed=3)
    assert half[:6].sum() == 3 and half[6:].sum() == 2
    assert (half == split_halves(domain, seed=3)).all() and (half != split_halves(domain, seed=4)).any()


def test_two_rows_of_a_domain_are_enough():
    assert split_halves(np.array([0, 1, 1, 0]), seed=0).reshape(2, 2).sum() == 2


def test_missing_rows_raise():
    domain = torch.tensor([1, 1])
    with pytest.raises(ValueError, match="`domain` is None"):
        labelled_source(None, domain)
    with pytest.raises(ValueError, match="`labels` is None"):
        labelled_source(domain, None)
    with pytest.raises(ValueError, match="labelled source rows"):
        labelled_source(domain, domain)
    with pytest.raises(ValueError, match="domain 0 has 1"):
        split_halves(np.array([0, 1, 1]), seed=0)
