from dataclasses import replace

import pytest
import torch

from hf_transfer.domain_generalization.vrex import VREx


def test_value_and_gradient_against_the_formula(sources):
    view, naive = sources(), sources()
    loss = VREx()(view)
    loss.backward()
    risks = []
    for e in range(3):
        rows = [i for i in range(11) if naive.domain[i] == e]
        risks.append(sum(-naive.logits[i].log_softmax(0)[naive.labels[i]] for i in rows) / len(rows))
    mean = sum(risks) / 3
    expected = sum((risk - mean) ** 2 for risk in risks) / 3
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)


def test_equal_risks_have_no_variance_and_the_penalty_waits(sources):
    view = sources()
    assert VREx()(replace(view, logits=torch.zeros(11, 4))).item() == pytest.approx(0.0, abs=1e-12)
    assert VREx(starts_at=0.6)(view).item() == 0


def test_unlabelled_rows_give_no_loss(make_view):
    assert VREx()(make_view(0, 5)).item() == 0


def test_an_invalid_keyword_raises():
    with pytest.raises(ValueError, match="`starts_at`"):
        VREx(starts_at=1.0)


def test_environments_of_several_labels_with_equal_risks_cost_nothing(sources):
    """At logits of 0 every label costs log 2, however many of a row's hold; squared errors would differ."""
    labels = (torch.arange(44).reshape(11, 4) % 3 == 0).float()
    view = replace(sources(), logits=torch.zeros(11, 4), labels=labels, problem_type="multi_label_classification")
    assert VREx()(view).item() == pytest.approx(0.0, abs=1e-12)
