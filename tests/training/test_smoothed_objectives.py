"""Objectives that compute the task loss anew take it with the label smoothing of the run."""

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import IGNORED_LABEL
from hf_transfer.domain_adaptation.mcd import MCD
from hf_transfer.domain_adaptation.pada import PADA
from hf_transfer.domain_generalization.groupdro import GroupDRO
from hf_transfer.domain_generalization.irm import IRM
from hf_transfer.domain_generalization.mldg import MLDG
from hf_transfer.domain_generalization.vrex import VREx
from hf_transfer.few_shot.maml import MAML
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny

SMOOTHING, CLASSES = 0.3, 4


@pytest.fixture
def batch():
    """Twelve random pictures, four of domain 0 and eight of domain 1, all with a label."""
    generator = torch.Generator().manual_seed(0)
    pixels = torch.rand(12, 1, tiny.IMAGE_SIZE, tiny.IMAGE_SIZE, generator=generator)
    return {"pixel_values": pixels, "labels": torch.arange(12) % CLASSES, "domain": (torch.arange(12) % 3 > 0).long()}


def model_with(**objectives) -> TransferModel:
    torch.manual_seed(0)
    config = {"hidden_dropout_prob": 0.0, "attention_probs_dropout_prob": 0.0}
    made = TransferModel(tiny.vit(num_labels=CLASSES, **config), objectives, label_smoothing=SMOOTHING).train()
    made.progress = 0.5
    return made


def smoothed(logits, labels):
    return F.cross_entropy(logits, labels, label_smoothing=SMOOTHING, reduction="none")


def gradient(loss, model):
    found = torch.autograd.grad(loss, list(model.model.parameters()), allow_unused=True)
    return torch.cat([one.flatten() for one in found if one is not None])


def assert_trains(model: TransferModel, batch, expected) -> None:
    """The total loss of a batch and its gradient are those of `expected`."""
    torch.testing.assert_close(model(**batch).loss, expected)
    torch.testing.assert_close(gradient(model(**batch).loss, model), gradient(expected, model), rtol=1e-3, atol=1e-5)


def test_group_dro(batch):
    model = model_with(groupdro=GroupDRO(step_size=1e-9))
    losses = smoothed(model.model(batch["pixel_values"]).logits, batch["labels"])
    assert_trains(model, batch, sum(losses[batch["domain"] == e].mean() for e in (0, 1)) / 2)


def test_vrex(batch):
    model = model_with(vrex=VREx())
    losses = smoothed(model.model(batch["pixel_values"]).logits, batch["labels"])
    risks = torch.stack([losses[batch["domain"] == e].mean() for e in (0, 1)])
    assert_trains(model, batch, losses.mean() + 10 * risks.var(correction=0))


def test_irm(batch):
    model = model_with(irm=IRM())
    logits, products = model.model(batch["pixel_values"]).logits, []
    for e in (0, 1):
        rows = batch["domain"] == e
        scales = torch.ones(2, requires_grad=True)
        halves = [smoothed(s * logits[rows][i::2], batch["labels"][rows][i::2]).mean() for i, s in enumerate(scales)]
        products.append(torch.autograd.grad(sum(halves), scales, create_graph=True)[0].prod())
    assert_trains(model, batch, smoothed(logits, batch["labels"]).mean() + sum(products) / 2)


def test_mldg(batch):
    model = model_with(mldg=MLDG(inner_learning_rate=1e-9, first_order=True))
    losses = smoothed(model.model(batch["pixel_values"]).logits, batch["labels"])
    # one environment trains and the other is held out, whichever is drawn, and the step between is next to nothing
    assert_trains(model, batch, sum(losses[batch["domain"] == e].mean() for e in (0, 1)))


def test_pada(batch):
    model = model_with(pada=PADA(trade_off=0.0, momentum=0.0))
    labels, domain = batch["labels"], batch["domain"]
    logits = model.model(batch["pixel_values"]).logits
    shares = (logits[domain == 1].detach() / 0.1).softmax(dim=1).mean(dim=0)
    weights = shares[labels[domain == 0]]
    expected = (weights * smoothed(logits[domain == 0], labels[domain == 0])).sum() / weights.sum()
    assert_trains(model, {**batch, "labels": labels.where(domain == 0, IGNORED_LABEL)}, expected)


def test_the_second_head_of_mcd(batch):
    model = model_with(mcd=MCD(num_k=1))
    method = model.objectives["mcd"]
    method.phase = method.phases(0.0)[0]
    features = model.model.vit(batch["pixel_values"]).last_hidden_state[:, 0]
    heads = (model.model.classifier, method.second_head)
    assert_trains(model, batch, sum(smoothed(head(features), batch["labels"]).mean() for head in heads))


def test_maml(batch):
    model = model_with(maml=MAML(ways=2, shots=1, queries=5, episodes_per_batch=1, inner_learning_rate=1e-9))
    model.task_loss_weight = 0.0
    order = torch.tensor([0, 1, *[0] * 5, *[1] * 5])
    logits = model.model(batch["pixel_values"]).logits[2:, :2]
    assert_trains(model, {"pixel_values": batch["pixel_values"], "labels": order}, smoothed(logits, order[2:]).mean())
