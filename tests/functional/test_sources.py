from dataclasses import replace

import pytest
import torch

from hf_transfer.functional.sources import labelled_rows


def test_only_labelled_rows_are_kept(make_view):
    view = labelled_rows(make_view(6, 5))
    assert len(view.logits) == 6 and (view.labels >= 0).all() and (view.domain == 0).all()
    numbers = replace(make_view(6, 5), labels=torch.tensor([0.5] * 10 + [-100.0]))
    assert len(labelled_rows(numbers).logits) == 10


@pytest.mark.parametrize("field", ["labels", "domain"])
def test_a_batch_without_them_raises(make_view, field):
    with pytest.raises(ValueError, match=field):
        labelled_rows(replace(make_view(), **{field: None}))
