import pytest
import torch
import torch.nn.functional as F
from torch import nn

from hf_transfer.core.objective import IGNORED_LABEL, View
from hf_transfer.domain_generalization.mldg import MLDG
from hf_transfer.training.trainer import TransferTrainer
from tests import tiny
from tests.training.test_trainer import config, state_of

RATE, BETA = 0.5, 0.8


class Answer:
    def __init__(self, logits):
        self.logits = logits


class Net(nn.Module):
    """A two-layer classifier whose answers look like a Hugging Face model's."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Linear(3, 5), nn.Linear(5, 4)

    def forward(self, rows):
        return Answer(self.last(torch.tanh(self.first(rows))))


@pytest.fixture
def setting():
    """(model, view of 9 labelled rows of three environments and one row without a label)."""
    torch.manual_seed(0)
    model = Net().double()
    rows = torch.randn(10, 3, dtype=torch.float64)
    labels = torch.tensor([0, 1, 2, 3, 0, 1, 2, 3, 0, IGNORED_LABEL])
    environments = torch.tensor([4, 7, 9, 4, 7, 9, 4, 7, 9, 4])
    logits = model(rows).logits
    return model, View(torch.zeros(10, 1), logits, labels, environments, inputs={"rows": rows}, model=model)


def naive(model, view, test_environments, first_order):
    """F + beta G(theta - alpha dF), by hand on the matrices."""
    weights = list(model.parameters())

    def loss(keep, w):
        hidden = torch.tanh(view.inputs["rows"][keep] @ w[0].T + w[1])
        return F.cross_entropy(hidden @ w[2].T + w[3], view.labels[keep])

    labelled = view.labels != IGNORED_LABEL
    test = torch.isin(view.domain, torch.tensor(test_environments)) & labelled
    inner = loss(labelled & ~test, weights)
    gradients = torch.autograd.grad(inner, weights, create_graph=True)
    gradients = [g.detach() if first_order else g for g in gradients]
    moved = [w - RATE * g for w, g in zip(weights, gradients)]
    return inner + BETA * loss(test, moved)


@pytest.mark.parametrize("first_order", [False, True])
@pytest.mark.parametrize("held_out", [1, 2, 5])
def test_value_and_gradient_against_the_formula(setting, first_order, held_out):
    model, view = setting
    mldg = MLDG(inner_learning_rate=RATE, beta=BETA, held_out=held_out, first_order=first_order)
    torch.manual_seed(3)
    drawn = torch.tensor([4, 7, 9])[torch.randperm(3)[: min(held_out, 2)]].tolist()
    torch.manual_seed(3)
    labelled = view.labels != IGNORED_LABEL
    total = F.cross_entropy(view.logits[labelled], view.labels[labelled]) + mldg(view)
    expected = naive(model, view, drawn, first_order)
    torch.testing.assert_close(total, expected, check_dtype=False, rtol=1e-5, atol=1e-6)
    found = torch.autograd.grad(total, list(model.parameters()), retain_graph=True)
    wanted = torch.autograd.grad(expected, list(model.parameters()))
    for got, want in zip(found, wanted):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_exact_gradient_is_another_one(setting):
    model, view = setting
    gradients = []
    for first_order in (False, True):
        torch.manual_seed(3)
        loss = MLDG(inner_learning_rate=RATE, first_order=first_order)(view)
        gradients.append(torch.autograd.grad(loss, model.first.weight, retain_graph=True)[0])
    assert (gradients[0] - gradients[1]).abs().max() > 1e-3


def test_with_beta_zero_it_is_the_risk_of_the_meta_train_environments(setting):
    _, view = setting
    torch.manual_seed(3)
    held_out = torch.tensor([4, 7, 9])[torch.randperm(3)[0]]
    torch.manual_seed(3)
    loss = MLDG(beta=0.0)(view)
    labelled = view.labels != IGNORED_LABEL
    train = labelled & (view.domain != held_out)
    risk = [F.cross_entropy(view.logits[keep], view.labels[keep]) for keep in (train, labelled)]
    torch.testing.assert_close(loss, risk[0] - risk[1], check_dtype=False, rtol=1e-5, atol=1e-6)


def test_one_environment_says_nothing(setting):
    _, view = setting
    assert MLDG()(view.rows(view.domain == 4)).item() == 0.0


def test_both_forms_train_a_transformer(tmp_path, digits):
    """Attention has its second derivatives in the exact form, and both forms move the backbone differently."""
    rows = tiny.with_column(digits, "domain", [0, 1, 2, 3] * 16)
    ends = []
    for first_order in (False, True):
        torch.manual_seed(0)
        objectives = {"mldg": {"inner_learning_rate": 0.1, "first_order": first_order}}
        args = config(tmp_path, max_steps=1, optim="sgd")
        trainer = TransferTrainer(tiny.vit(), args, train_dataset=rows, objectives=objectives)
        trainer.train()
        ends.append(state_of(trainer))
    name = "model.vit.embeddings.patch_embeddings.projection.weight"
    assert ends[0][name].isfinite().all() and not torch.equal(ends[0][name], ends[1][name])


@pytest.mark.parametrize("keywords", [{"inner_learning_rate": 0.0}, {"beta": -1.0}, {"held_out": 0}])
def test_a_keyword_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        MLDG(**keywords)
