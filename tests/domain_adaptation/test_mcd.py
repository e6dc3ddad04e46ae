import pytest
import torch

from hf_transfer.core.objective import IGNORED_LABEL, BuildContext
from hf_transfer.domain_adaptation.mcd import MCD, classifier_discrepancy
from tests import tiny


def naive_discrepancy(first, second):
    rows = [sum((p - q).abs() for p, q in zip(a.softmax(0), b.softmax(0))) / len(a) for a, b in zip(first, second)]
    return sum(rows) / len(rows)


def naive_cross_entropy(logits, labels):
    rows = [-row.softmax(0)[label].log() for row, label in zip(logits, labels) if label != IGNORED_LABEL]
    return sum(rows) / len(rows)


@pytest.fixture
def mcd(make_view):
    torch.manual_seed(0)
    objective = MCD(weight=0.7)
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    return objective


def test_the_published_value(sines):
    assert classifier_discrepancy(sines["y"], sines["ya"]).item() == pytest.approx(0.162273, abs=5e-7)


def test_value_and_gradient_against_the_formula(sines):
    pairs = [[sines[k].clone().requires_grad_() for k in ("y", "ya")] for _ in range(2)]
    value, expected = classifier_discrepancy(*pairs[0]), naive_discrepancy(*pairs[1])
    torch.testing.assert_close(value, expected)
    value.backward()
    expected.backward()
    for got, want in zip(*pairs):
        torch.testing.assert_close(got.grad, want.grad)


def test_equal_classifiers_have_no_discrepancy(sines):
    assert classifier_discrepancy(sines["y"], sines["y"] + 3.0).item() == pytest.approx(0.0, abs=1e-15)


def test_the_three_losses(mcd, make_view):
    view, naive = make_view(), make_view()
    second = mcd.second_head(naive.features)
    source = naive_cross_entropy(second, naive.labels)
    target = naive.domain == 1
    discrepancy = 0.7 * naive_discrepancy(naive.logits[target], second[target])
    classify, separate, unite = mcd.phases(0.0)
    torch.testing.assert_close(classify.loss(view), source)
    torch.testing.assert_close(unite.loss(view), discrepancy)
    loss, expected = separate.loss(view), source - discrepancy
    torch.testing.assert_close(loss, expected)
    loss.backward()
    gradients = [parameter.grad.clone() for parameter in mcd.parameters()]
    mcd.zero_grad()
    expected.backward()
    torch.testing.assert_close(view.features.grad, naive.features.grad)
    torch.testing.assert_close(view.logits.grad, naive.logits.grad)
    for got, parameter in zip(gradients, mcd.parameters()):
        torch.testing.assert_close(got, parameter.grad)


def test_who_moves_when(mcd):
    """Heads and encoder in turns, the encoder four times, and the task loss where the paper has it."""
    model = tiny.vit(num_labels=4)
    classify, separate, unite = mcd.phases(0.0)
    heads = {id(p) for p in (*model.classifier.parameters(), *mcd.second_head.parameters())}
    assert {id(p) for p in separate.parameters(model)} == heads
    assert {id(p) for p in unite.parameters(model)} == {id(p) for p in model.vit.parameters()}
    assert {id(p) for p in classify.parameters(model)} == heads | {id(p) for p in model.vit.parameters()}
    assert [phase.steps for phase in (classify, separate, unite)] == [1, 1, 4]
    assert [phase.joins_task for phase in (classify, separate, unite)] == [True, True, False]
    early = MCD(source_share=0.5)
    assert [phase.name for phase in early.phases(0.4)] == ["classify"] and len(early.phases(0.5)) == 3


def test_a_batch_of_one_domain_is_refused(mcd, make_view):
    with pytest.raises(ValueError, match="needs source and target rows"):
        mcd.phases(0.0)[2].loss(make_view(num_target=0))


@pytest.mark.parametrize("keywords", [{"num_k": 0}, {"source_share": 1.0}, {"weight": -1.0}])
def test_a_keyword_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        MCD(**keywords)


def test_one_output_is_no_classifier():
    with pytest.raises(ValueError, match="MCD needs a classifier with at least 2 classes, got num_labels=1"):
        MCD().build(BuildContext(None, 7, 1))
