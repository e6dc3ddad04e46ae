import pytest
import torch

from hf_transfer.domain_adaptation.pseudo_label import PseudoLabel


def test_value_and_gradient_against_the_formula(make_view):
    view, naive = make_view(progress=0.1), make_view(progress=0.1)
    loss = PseudoLabel(threshold=0.5, ramp_until=0.4)(view)
    loss.backward()
    p = naive.logits[naive.domain == 1].softmax(1).max(1).values
    expected = 0.25 * torch.where(p >= 0.5, -p.log(), 0 * p).mean()
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)
    assert loss > 0


def test_the_ramp_is_zero_at_first_and_ends_at_one(make_view):
    objective = PseudoLabel(threshold=0.0, ramp_until=0.4)
    assert objective(make_view(progress=0.0)).item() == 0
    torch.testing.assert_close(objective(make_view(progress=0.4)), objective(make_view(progress=1.0)))


def test_a_batch_without_target_rows_gives_no_loss(make_view):
    assert PseudoLabel()(make_view(4, 0)).item() == 0


@pytest.mark.parametrize("keywords", [{"threshold": 1.0}, {"ramp_until": 0.0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        PseudoLabel(**keywords)
