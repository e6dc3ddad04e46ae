import pytest
import torch

from hf_transfer.domain_adaptation.self_training import confident_cross_entropy, target_view_pair


@pytest.mark.parametrize("threshold", [0.6, torch.tensor([0.3, 0.5, 0.4, 0.9], dtype=torch.float64)])
def test_value_and_gradient_against_the_formula(sines, threshold):
    logits, naive = (sines["y"].clone().requires_grad_() for _ in range(2))
    loss = confident_cross_entropy(logits, 2 * sines["ya"], threshold)
    teacher = (2 * sines["ya"]).softmax(1)
    terms = []
    for row, p in zip(naive.softmax(1), teacher):
        label = int(p.argmax())
        least = threshold if isinstance(threshold, float) else threshold[label]
        terms.append(-row[label].log() if p[label] >= least else 0.0 * row.sum())
    assert 0 < sum(term.item() > 0 for term in terms) < len(terms), "the case should have both kinds of rows"
    expected = sum(terms) / len(terms)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, naive.grad)


def test_the_pair_is_the_target_rows_of_both_copies(make_view_pair):
    view = make_view_pair()
    weak, strong = target_view_pair(view)
    target = view.domain == 1
    torch.testing.assert_close(weak.logits, view.logits[target])
    torch.testing.assert_close(strong.logits, view.views[0].logits[target])


def test_a_batch_without_second_views_raises(make_view):
    with pytest.raises(ValueError, match="two augmented views"):
        target_view_pair(make_view())
