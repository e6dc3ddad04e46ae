import math

import pytest
import torch
from torch import nn
from transformers import ViTForImageClassification

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.readout import Readout, Units, rows_of
from hf_transfer.domain_adaptation.noisy_student import (
    NoisyStudent,
    confident_soft_cross_entropy,
    noisy_student,
)
from hf_transfer.modeling.readouts import choose_readout
from tests import tiny


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Teacher(nn.Module):
    """Answers with what it reads; in training it would answer with noise."""

    def __init__(self, num_labels=4):
        super().__init__()
        self.config = type("Config", (), {"num_labels": num_labels})

    def forward(self, rows):
        return Answer(torch.randn_like(rows) if self.training else rows)


class Logits(Readout):
    """The logits of a stand-in as they are."""

    def read(self, outputs, batch):
        return Units(None, outputs.logits, None, rows_of(batch))


def naive(logits, teacher_logits, threshold, soft):
    losses = []
    for row, teacher in zip(logits, teacher_logits):
        p = teacher.softmax(0)
        wanted = p if soft else torch.eye(len(p), dtype=p.dtype)[p.argmax()]
        losses.append((wanted * -row.log_softmax(0)).sum() if p.max() >= threshold else 0.0 * row.sum())
    return sum(losses) / len(losses)


@pytest.fixture
def view(make_view):
    """Six source and five target rows, whose inputs are a teacher's logits."""
    plain = make_view()
    rows = 2.0 * torch.randn(11, 4, generator=torch.Generator().manual_seed(1))
    return View(plain.features, plain.logits, plain.labels, plain.domain, inputs={"rows": rows})


@pytest.mark.parametrize("soft", [True, False])
@pytest.mark.parametrize("threshold", [0.0, 0.7])
def test_value_and_gradient_against_the_formula(view, soft, threshold):
    method = NoisyStudent(Teacher(), soft=soft, threshold=threshold)
    method.build(BuildContext(None, 7, 4, Logits()))
    loss = method.train()(view)
    target = view.domain == 1
    expected = naive(view.logits[target], view.inputs["rows"][target], threshold, soft)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, view.logits)
    (wanted,) = torch.autograd.grad(expected, view.logits)
    torch.testing.assert_close(gradient, wanted)
    assert not gradient[~target].any()
    confident = (view.inputs["rows"][target].softmax(1).max(1).values >= threshold).sum()
    assert confident == 5 if threshold == 0.0 else 0 < confident < 5


def test_a_student_that_agrees_pays_the_entropy_alone():
    logits = torch.tensor([[0.0, 0.0], [0.0, 0.0]], requires_grad=True)
    loss = confident_soft_cross_entropy(logits, torch.zeros(2, 2), 0.0)
    assert loss.item() == pytest.approx(math.log(2))
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_the_student_sees_the_noised_copy_and_the_teacher_the_clean_one(view, make_view):
    noised = make_view(seed=7)
    both = View(**{**view.__dict__, "views": (View(noised.features, noised.logits, view.labels, view.domain),)})
    method = NoisyStudent(Teacher(), augmented=True, threshold=0.0)
    method.build(BuildContext(None, 7, 4, Logits()))
    assert method.needs == NoisyStudent.needs | {"views"} and "views" not in NoisyStudent.needs
    target = view.domain == 1
    expected = naive(noised.logits[target], view.inputs["rows"][target], 0.0, True)
    torch.testing.assert_close(method(both), expected)
    with pytest.raises(ValueError, match="two augmented views"):
        method(view)


def test_the_teacher_comes_from_a_folder_of_any_size_and_keeps_still(tmp_path, digits):
    torch.manual_seed(0)
    config = tiny.vit().config
    config.num_hidden_layers = 3
    large = ViTForImageClassification(config)
    large.save_pretrained(tmp_path)
    method = NoisyStudent(str(tmp_path))
    student = tiny.vit()
    method.build(BuildContext(student, 16, 10, choose_readout(student)))
    pixels = tiny.batch_of(digits)["pixel_values"]
    method.train()
    assert torch.equal(method.teacher(pixels).logits, large.eval()(pixels).logits)
    assert not any(parameter.requires_grad for parameter in method.teacher.parameters())


def test_a_teacher_of_other_classes_is_refused():
    with pytest.raises(ValueError, match="`teacher` should have the student's 4 classes, got 3"):
        NoisyStudent(Teacher(num_labels=3)).build(BuildContext(None, 7, 4, Logits()))


def test_a_keyword_out_of_range():
    with pytest.raises(ValueError, match=r"`threshold` should be in \[0, 1\), got 1.0"):
        NoisyStudent(threshold=1.0)


def test_rounds_pass_over_what_is_finished(tmp_path):
    calls = []

    def train_round(folder, teacher):
        if folder.name == "round-1" and len(calls) == 1:
            calls.append("broken off")
            raise KeyboardInterrupt
        calls.append((folder, teacher))
        (folder / "model").mkdir(parents=True, exist_ok=True)

    with pytest.raises(KeyboardInterrupt):
        noisy_student(train_round, tmp_path, rounds=2)
    last = noisy_student(train_round, tmp_path, rounds=2)
    first, second = tmp_path / "round-0", tmp_path / "round-1"
    assert calls == [(first, None), "broken off", (second, first / "model"), (tmp_path, second / "model")]
    assert last == tmp_path / "model"
    noisy_student(train_round, tmp_path, rounds=2)
    assert len(calls) == 4
    noisy_student(train_round, tmp_path, rounds=1, resume=False)
    assert len(calls) == 6


def test_a_round_without_a_model_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError, match="round 0 left no model"):
        noisy_student(lambda folder, teacher: None, tmp_path)
    with pytest.raises(ValueError, match="`rounds` should be positive, got 0"):
        noisy_student(lambda folder, teacher: None, tmp_path, rounds=0)


def test_a_class_that_both_rule_out_adds_nothing():
    logits = torch.randn(5, 4, generator=torch.Generator().manual_seed(0))
    masked = logits + torch.tensor([0.0, -torch.inf, 0.0, 0.0])
    expected = confident_soft_cross_entropy(logits[:, [0, 2, 3]], logits[:, [0, 2, 3]] * 2, 0.0)
    torch.testing.assert_close(confident_soft_cross_entropy(masked, masked * 2, 0.0), expected)
