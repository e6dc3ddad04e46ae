import pytest
import torch

from hf_transfer.domain_adaptation.fixmatch import FixMatch


def test_value_and_gradient_against_the_formula(make_view_pair):
    view, naive = make_view_pair(), make_view_pair()
    loss = FixMatch(threshold=0.5)(view)
    loss.backward()
    terms = []
    for weak, strong, domain in zip(naive.logits, naive.views[0].logits, naive.domain):
        if domain == 1:
            p = weak.detach().softmax(0)
            terms.append(-strong.log_softmax(0)[p.argmax()] * float(p.max() >= 0.5))
    expected = sum(terms) / len(terms)
    expected.backward()
    assert loss > 0
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.views[0].logits.grad, naive.views[0].logits.grad)
    assert view.logits.grad is None, "the weak view is the teacher"


def test_a_batch_without_target_rows_gives_no_loss(make_view_pair):
    assert FixMatch()(make_view_pair(4, 0)).item() == 0


def test_bad_input_raises(make_view):
    with pytest.raises(ValueError, match="`threshold`"):
        FixMatch(threshold=1.5)
    with pytest.raises(ValueError, match="two augmented views"):
        FixMatch()(make_view())
