import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.task_adaptation.lwf import LwF, distillation


def naive(logits, teacher, temperature):
    total = 0.0
    for row, other in zip(logits, teacher):
        p, q = (other / temperature).softmax(0).detach(), (row / temperature).softmax(0)
        total = total + sum(a * (a.log() - b.log()) for a, b in zip(p, q)) / len(logits)
    return total


def test_value_and_gradient_against_the_formula(make_view):
    view, other = make_view(), make_view()
    teacher = make_view(seed=3).logits
    loss, expected = distillation(view.logits, teacher, 2.0), naive(other.logits, teacher, 2.0)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(view.logits.grad, other.logits.grad)
    assert teacher.grad is None


def test_without_a_source_head_it_compares_the_logits(make_view, tiny_model):
    objective = LwF(temperature=3.0)
    objective.build(BuildContext(tiny_model, 8, 3))
    teacher = make_view(seed=3)
    view = make_view(teacher=teacher)
    torch.testing.assert_close(objective(view), distillation(view.logits, teacher.logits, 3.0))
    assert objective(make_view(teacher=make_view())).item() == pytest.approx(0.0, abs=1e-7)


def test_the_old_head_learns_and_its_frozen_copy_does_not(make_view, tiny_model):
    head = torch.nn.Linear(8, 5)
    objective = LwF(source_head=head)
    objective.build(BuildContext(tiny_model, 8, 3))
    start = make_view(teacher=make_view())
    assert objective(start).item() == pytest.approx(0.0, abs=1e-7)
    view = make_view(teacher=make_view(seed=3))
    torch.testing.assert_close(objective(view), naive(head(view.features), head(view.teacher.features), 2.0))
    objective(view).backward()
    assert objective.old_head.weight.grad.abs().sum() > 0 and view.features.grad.abs().sum() > 0
    assert not objective.frozen_head.weight.requires_grad and head.weight.grad is None
    assert {name.split(".")[0] for name in objective.state_dict()} == {"old_head", "frozen_head"}


def test_bad_input_raises(tiny_model):
    with pytest.raises(ValueError, match="`temperature`"):
        LwF(temperature=0)
    with pytest.raises(ValueError, match="features of width 8"):
        LwF(source_head=torch.nn.Linear(7, 5)).build(BuildContext(tiny_model, 8, 3))


def test_a_regression_model_keeps_its_old_answers():
    """One output has no softmax to compare."""
    z, z0 = torch.tensor([[1.0], [4.0]], requires_grad=True), torch.tensor([[3.0], [4.0]])
    loss = distillation(z, z0, temperature=2.0)
    assert loss.item() == pytest.approx(((1 - 3) / 2) ** 2 / 2 / 2)
    loss.backward()
    torch.testing.assert_close(z.grad, torch.tensor([[-0.25], [0.0]]))


@pytest.mark.parametrize("problem_type", ["single_label_classification", "multi_label_classification", "regression"])
def test_the_divergence_of_each_kind_of_prediction(problem_type):
    generator = torch.Generator().manual_seed(0)
    logits, teacher = torch.randn(5, 3, generator=generator), torch.randn(5, 3, generator=generator)

    def distribution(z):
        if problem_type == "regression":
            return torch.distributions.Normal(z, 2.0)
        if problem_type == "multi_label_classification":
            return torch.distributions.Bernoulli(logits=z / 2)
        return torch.distributions.Categorical(logits=z / 2)

    divergence = torch.distributions.kl_divergence(distribution(teacher), distribution(logits))
    expected = divergence.reshape(5, -1).sum(dim=1).mean()
    torch.testing.assert_close(distillation(logits, teacher, 2.0, problem_type), expected)


def test_a_class_that_the_teacher_rules_out_adds_nothing():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    mask = torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    assert distillation(logits + mask, logits + mask).item() == 0
    torch.testing.assert_close(
        distillation(logits * 2 + mask, logits + mask), distillation(logits[:, [0, 2, 3]] * 2, logits[:, [0, 2, 3]])
    )
