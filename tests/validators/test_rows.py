import pytest
import torch

from hf_transfer.validators.rows import source_rows, target_rows


def test_rows_are_selected_by_domain():
    values, domain = torch.arange(4), torch.tensor([0, 1, 1, 0])
    assert target_rows(values, domain).tolist() == [1, 2]
    assert source_rows(values, domain).tolist() == [0, 3]
    assert target_rows(values, None).tolist() == [0, 1, 2, 3]


def test_missing_rows_raise():
    with pytest.raises(ValueError, match="source rows"):
        source_rows(torch.arange(2), torch.tensor([1, 1]))
    with pytest.raises(ValueError, match="needs `domain`"):
        source_rows(torch.arange(2), None)
