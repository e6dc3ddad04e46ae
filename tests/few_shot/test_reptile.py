import pytest
import torch
import torch.nn.functional as F
from datasets import Dataset

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.few_shot.adaptation import Rows
from hf_transfer.few_shot.reptile import Reptile, in_turn
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny
from tests.few_shot.test_maml import LABELS, RATE, Net


def naive_end(model, rows, targets, steps, batch):
    """The weights after steps of gradient descent on rows taken a class in turn, by hand."""
    order = [
        row for pair in zip(*((targets == label).nonzero().flatten().tolist() for label in (0, 1))) for row in pair
    ]
    rows, targets = rows[order], targets[order]
    weights = [weight.detach().clone().requires_grad_() for weight in model.parameters()]
    for step in range(steps):
        keep = [k % len(rows) for k in range(step * batch, (step + 1) * batch)]
        hidden = torch.tanh(rows[keep] @ weights[0].T + weights[1])
        loss = F.cross_entropy((hidden @ weights[2].T + weights[3])[:, :2], targets[keep])
        gradients = torch.autograd.grad(loss, weights)
        weights = [(w - RATE * g).detach().requires_grad_() for w, g in zip(weights, gradients)]
    return weights


@pytest.mark.parametrize("steps", [1, 4])
def test_value_and_gradient_against_the_formula(steps):
    torch.manual_seed(0)
    model, targets = Net().double(), torch.tensor([0, 0, 1, 1, 0, 1, 1, 0])
    rows, labels = torch.randn(16, 3, dtype=torch.float64), torch.cat([LABELS, LABELS + 1])
    reptile = Reptile(
        ways=2,
        shots=2,
        queries=2,
        episodes_per_batch=2,
        inner_learning_rate=RATE,
        inner_steps=steps,
        inner_batch_size=3,
    )
    reptile.build(BuildContext(model, None, 4))
    loss = reptile(View(labels=labels, inputs={"rows": rows}, model=model))
    ends = [naive_end(model, rows[start : start + 8], targets, steps, 3) for start in (0, 8)]
    weights = list(model.parameters())
    expected = sum((w - end).square().sum() / 4 for both in ends for w, end in zip(weights, both))
    torch.testing.assert_close(loss, expected, check_dtype=False, rtol=1e-5, atol=1e-7)
    for got, weight, *both in zip(torch.autograd.grad(loss, weights), weights, *ends):
        torch.testing.assert_close(got, weight - sum(both) / 2, rtol=1e-4, atol=1e-6)


def test_an_inner_batch_has_every_class():
    """The rows of an episode stand class by class, the support rows before the queries."""
    labels = torch.tensor([*[0] * 5, *[1] * 5, *[2] * 5, *[0] * 2, *[1] * 2, *[2] * 2])
    rows = in_turn(Rows({"rows": torch.arange(21)}, labels, "single_label_classification", 3))
    for batch in rows.labels.split(3):
        assert batch.tolist() == [0, 1, 2]
    assert sorted(rows.inputs["rows"].tolist()) == list(range(21)) and labels[rows.inputs["rows"]].equal(rows.labels)
    values = Rows({"rows": torch.arange(3)}, torch.rand(3), "regression", None)
    assert in_turn(values) is values


def test_plain_descent_with_rate_one_lands_where_the_episodes_lead(tmp_path, digits):
    """The paper's outer step with eps 1, through the trainer."""
    torch.manual_seed(0)
    keywords = {"ways": 3, "shots": 2, "queries": 2, "episodes_per_batch": 1, "inner_steps": 3}
    args = TransferConfig(
        output_dir=str(tmp_path), objectives={"reptile": keywords}, task_loss_weight=0.0, max_steps=1, optim="sgd",
        per_device_train_batch_size=12, learning_rate=1.0, lr_scheduler_type="constant", max_grad_norm=0.0,
        save_strategy="no", report_to=[], disable_tqdm=True, use_cpu=True,
    )  # fmt: skip
    trainer = TransferTrainer(tiny.vit(), args, train_dataset=digits)
    reptile, model, ends = trainer.transfer_model.objectives["reptile"], trainer.adapted_model, []
    adapt = reptile.adapt

    def watched(*told):
        ends.append(adapt(*told))
        return ends[-1]

    reptile.adapt = watched
    trainer.train()
    assert len(ends) == 1
    for name, value in model.named_parameters():
        torch.testing.assert_close(value, ends[0][name])


def test_a_number_out_of_its_range_is_refused():
    with pytest.raises(ValueError, match="`inner_batch_size` should be positive"):
        Reptile(inner_batch_size=0)


def test_environments_are_tasks_with_labels_of_their_own(tmp_path):
    """Lines through the origin: an environment is a slope, which two rows tell."""
    torch.manual_seed(0)
    slopes = torch.linspace(-1, 1, 8).repeat_interleave(12)
    inputs = torch.randn(96, 3)
    columns = {
        "rows": inputs.tolist(),
        "labels": (slopes * inputs[:, 0]).tolist(),
        "domain": (slopes * 10).int().tolist(),
    }
    model = Net()
    model.config.num_labels, model.last = 1, torch.nn.Linear(5, 1)
    reptile = Reptile(shots=2, queries=2, episodes_per_batch=1, groups="environments")
    rows = Dataset.from_dict(columns).with_format("torch")[:4]
    view = View(labels=rows["labels"], domain=rows["domain"], inputs={"rows": rows["rows"]}, model=model)
    assert reptile(view).item() > 0 and reptile.ways == 1 and "environments" in reptile.needs
