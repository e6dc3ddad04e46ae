"""The decision of the problem type, and what follows from it."""

from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.task_loss import (
    IGNORED_LABEL,
    MULTI_LABEL,
    PROBLEM_TYPES,
    REGRESSION,
    SINGLE_LABEL,
    declared_problem_type,
    draw_labels,
    negative_log_likelihood,
    predicted,
    probabilities,
    problem_type_of,
    problem_type_of_outputs,
    row_losses,
    task_loss,
)
from tests import tiny


def config(num_labels=3, problem_type=None):
    return SimpleNamespace(num_labels=num_labels, problem_type=problem_type)


@pytest.mark.parametrize(
    "num_labels, declared, labels, expected",
    [
        (3, None, [0, 1, 2], SINGLE_LABEL),
        (2, None, [True, False], SINGLE_LABEL),
        (1, None, [0, 1, 5], REGRESSION),
        (1, None, [0.5, 1.5], REGRESSION),
        (1, None, [[0.5], [1.5]], REGRESSION),
        (2, None, [[0, 1], [1, 1]], MULTI_LABEL),
        (2, None, [[0.0, 1.0], [IGNORED_LABEL, IGNORED_LABEL]], MULTI_LABEL),
        (2, None, [[True, False], [False, False]], MULTI_LABEL),
        (2, None, [[0.0, 1.5], [1.0, 1.0]], REGRESSION),
        (2, None, [[3, 1], [1, 1]], REGRESSION),
        (3, SINGLE_LABEL, [0, 1, 2], SINGLE_LABEL),
        (2, MULTI_LABEL, [[0, 1], [1, 1]], MULTI_LABEL),
        (1, MULTI_LABEL, [0, 1], MULTI_LABEL),
        (1, REGRESSION, [1, 2], REGRESSION),
        (2, REGRESSION, [[0.0, 1.0], [1.0, 1.0]], REGRESSION),
    ],
)
def test_the_problem_type_of_model_and_labels(num_labels, declared, labels, expected):
    for form in (torch.tensor, np.array):
        assert problem_type_of(config(num_labels, declared), form(labels)) == expected


@pytest.mark.parametrize(
    "num_labels, declared, labels, message",
    [
        (3, None, [0.5, 1.5], "column `x`: one number .* 3 outputs.*num_labels=1"),
        (3, None, [[0, 1], [1, 1]], r"a 0 or 1 for each class, of shape \[rows, 3\], got \[2, 2\]"),
        (3, SINGLE_LABEL, [0.0, 1.0], "one whole class number a row, got torch.float"),
        (2, SINGLE_LABEL, [[0, 1], [1, 1]], r"of shape \[2, 2\].*multi_label_classification"),
        (3, MULTI_LABEL, [0, 1, 2], "without `problem_type` if the labels are classes"),
        (2, REGRESSION, [0.5, 1.5], r"one number for each output, of shape \[rows, 2\], got \[2\]"),
        (1, SINGLE_LABEL, [0, 0], "one output, whose softmax is always 1"),
        (2, "ranking", [0, 1], "`problem_type` should be one of .* got 'ranking'"),
    ],
)
def test_labels_that_are_not_the_models_are_refused(num_labels, declared, labels, message):
    with pytest.raises(ValueError, match=message):
        problem_type_of(config(num_labels, declared), torch.tensor(labels), "column `x`")


def test_what_is_declared_without_labels():
    declared = [declared_problem_type(config(n, p)) for n, p in ((1, None), (2, None), (1, MULTI_LABEL))]
    assert declared == [REGRESSION, None, MULTI_LABEL]


LABELS = {
    SINGLE_LABEL: torch.tensor([2, 0, 1, 1]),
    MULTI_LABEL: torch.tensor([[1, 0, 1], [0, 0, 0], [1, 1, 1], [0, 1, 0]]),
    REGRESSION: torch.tensor([[1, 0, 3], [2, 2, 2], [0, -1, 1], [5, 1, 0]]),
}


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_loss_is_that_of_transformers(problem_type):
    torch.manual_seed(0)
    model = tiny.bert(problem_type=problem_type).eval()
    tokens, labels = torch.randint(200, (4, 6)), LABELS[problem_type]
    output = model(input_ids=tokens, labels=labels if problem_type == SINGLE_LABEL else labels.float())
    torch.testing.assert_close(task_loss(output.logits, labels, problem_type), output.loss)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_rows_without_a_label_do_not_count(problem_type):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    labels = LABELS[problem_type].clone()
    rows = row_losses(logits, labels, problem_type)
    labels[1] = IGNORED_LABEL
    assert row_losses(logits, labels, problem_type)[1] == 0
    loss = task_loss(logits, labels, problem_type)
    torch.testing.assert_close(loss, rows[[0, 2, 3]].mean())
    (gradient,) = torch.autograd.grad(loss, logits)
    assert (gradient[1] == 0).all() and (gradient[0] != 0).any()
    labels[:] = IGNORED_LABEL
    (gradient,) = torch.autograd.grad(task_loss(logits, labels, problem_type), logits)
    assert (gradient == 0).all()


@pytest.mark.parametrize("smoothing", [0.0, 0.1, 0.7])
def test_label_smoothing_is_that_of_torch(smoothing):
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(1), dtype=torch.float64).requires_grad_()
    labels = torch.tensor([0, 3, IGNORED_LABEL, 2, 1])
    mine = row_losses(logits, labels, SINGLE_LABEL, smoothing)
    torch.testing.assert_close(mine, F.cross_entropy(logits, labels, reduction="none", label_smoothing=smoothing))
    theirs = F.cross_entropy(logits, labels, reduction="sum", label_smoothing=smoothing)
    torch.testing.assert_close(*(torch.autograd.grad(loss, logits)[0] for loss in (mine.sum(), theirs)))


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL])
def test_a_class_that_the_model_rules_out_adds_nothing(problem_type):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(1)).requires_grad_()
    ruled_out = F.pad(logits, (0, 1), value=float("-inf"))
    labels, smoothing = LABELS[problem_type], 0.1 if problem_type == SINGLE_LABEL else 0.0
    if problem_type == MULTI_LABEL:  # a mean over the classes
        with_fourth, share = F.pad(labels, (0, 1)), 3 / 4
    else:
        with_fourth, share = labels, 1.0
    rows = row_losses(ruled_out, with_fourth, problem_type, smoothing)
    torch.testing.assert_close(rows, share * row_losses(logits, labels, problem_type, smoothing))
    assert torch.autograd.grad(rows.sum(), logits)[0].isfinite().all()
    impossible = torch.full_like(labels, 3) if problem_type == SINGLE_LABEL else torch.ones(4, 4, dtype=torch.long)
    assert not row_losses(ruled_out, impossible, problem_type, smoothing).isfinite().any()


def test_probabilities_and_answers():
    logits = torch.tensor([[2.0, -1.0, 0.5]])
    assert probabilities(logits, SINGLE_LABEL).sum() == pytest.approx(1.0)
    torch.testing.assert_close(probabilities(logits, MULTI_LABEL), 1 / (1 + (-logits).exp()))
    with pytest.raises(ValueError, match="no probabilities"):
        probabilities(logits, REGRESSION)
    assert predicted(logits, SINGLE_LABEL).tolist() == [0]
    assert predicted(logits, MULTI_LABEL).tolist() == [[1, 0, 1]]
    assert predicted(logits, REGRESSION) is logits


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_labels_are_drawn_from_the_models_own_distribution(problem_type):
    logits = torch.tensor([[1.0, -1.0, 0.2]]).expand(20_000, 3)
    drawn = draw_labels(logits, problem_type, torch.Generator().manual_seed(0))
    if problem_type == REGRESSION:
        torch.testing.assert_close(drawn.mean(dim=0), logits[0], atol=0.03, rtol=0)
        torch.testing.assert_close(drawn.var(dim=0), torch.ones(3), atol=0.03, rtol=0)
        return
    shares = drawn.float().mean(dim=0) if problem_type == MULTI_LABEL else drawn.bincount(minlength=3) / len(drawn)
    torch.testing.assert_close(shares, probabilities(logits[0], problem_type), atol=0.015, rtol=0)


@pytest.mark.parametrize("problem_type", PROBLEM_TYPES)
def test_the_likelihood_is_summed_over_rows_and_labels(problem_type):
    logits = torch.randn(4, 3, generator=torch.Generator().manual_seed(2))
    labels = LABELS[problem_type]
    if problem_type == SINGLE_LABEL:
        distribution = torch.distributions.Categorical(logits=logits)
    elif problem_type == MULTI_LABEL:
        distribution = torch.distributions.Bernoulli(logits=logits)
    else:
        distribution = torch.distributions.Normal(logits, 1.0)
    constant = logits.numel() * 0.5 * np.log(2 * np.pi) if problem_type == REGRESSION else 0.0
    expected = -distribution.log_prob(labels.to(logits.dtype)).sum() - constant
    torch.testing.assert_close(negative_log_likelihood(logits, labels, problem_type), expected)


def test_outputs_without_a_configuration_are_told_from_their_labels():
    classes, numbers = torch.tensor([0, 1, 1]), torch.tensor([[0.5, 2.0]] * 3)
    assert problem_type_of_outputs(torch.zeros(3, 2), classes) == SINGLE_LABEL
    assert problem_type_of_outputs(torch.zeros(3, 2), numbers) == REGRESSION
    assert problem_type_of_outputs(torch.zeros(3, 1), numbers[:, 0]) == REGRESSION
    assert problem_type_of_outputs(torch.zeros(3, 2), numbers.clamp(0, 1).round()) == MULTI_LABEL
