import math

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.pretraining.siglip import SigLIP, siglip_loss
from hf_transfer.training.transfer_model import TransferModel
from tests.pretraining import pairs
from tests.pretraining.test_clip import embeddings


def naive(images, texts, scale, bias):
    total = 0.0
    for i, image in enumerate(images):
        for j, text in enumerate(texts):
            sign = 1.0 if i == j else -1.0
            total = total + (1 + (-sign * (scale * (image * text).sum() + bias)).exp()).log()
    return total / len(images)


def test_value_and_gradient_against_the_formula():
    ours, theirs = embeddings(), embeddings()
    numbers = [[torch.tensor(v, dtype=torch.float64, requires_grad=True) for v in (8.0, -3.0)] for _ in range(2)]
    loss, expected = siglip_loss(*ours, *numbers[0]), naive(*theirs, *numbers[1])
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(loss, [*ours, *numbers[0]])
    for one, wanted in zip(found, torch.autograd.grad(expected, [*theirs, *numbers[1]])):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-10)


def test_a_models_own_loss_and_gradients_come_out():
    made = []
    for _ in range(2):
        model = pairs.siglip()
        torch.nn.init.constant_(model.logit_scale, 1.5)
        torch.nn.init.constant_(model.logit_bias, -2.0)
        made.append(model.train())
    batch = pairs.batch_of()
    wrapped = TransferModel(made[0], {"siglip": SigLIP()}, "nothing").train()
    ours, theirs = wrapped(**batch).loss, made[1](**batch, return_loss=True).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    assert not list(wrapped.objectives.parameters())
    ours.backward(), theirs.backward()
    for (key, value), other in zip(made[0].named_parameters(), made[1].parameters()):
        if other.grad is not None:
            torch.testing.assert_close(value.grad, other.grad, rtol=1e-4, atol=1e-6, msg=key)
    assert made[0].logit_bias.grad.abs() > 0 and made[0].logit_scale.grad.abs() > 0


def test_no_pair_depends_on_the_others():
    """The loss of a batch is the sum of what its pairs lose by themselves."""
    images, texts = embeddings(rows=4)
    whole = siglip_loss(images, texts, 10.0, -10.0) * 4
    cosines = images @ texts.T
    apart = sum(-F.logsigmoid((1 if i == j else -1) * (10 * cosines[i, j] - 10)) for i in range(4) for j in range(4))
    torch.testing.assert_close(whole, apart)


def test_the_start_of_the_paper():
    """At the start no pair is believed in: the loss is that of the own pairs."""
    eye = F.normalize(torch.eye(16) + 0.0, dim=1)
    assert siglip_loss(eye, eye.roll(1, 0), 10.0, -10.0).item() == pytest.approx(
        10 + math.log1p(math.exp(-10)) + math.log(2) + 14 * math.log1p(math.exp(-10)), abs=1e-4
    )


@pytest.mark.parametrize("name", ["siglip", "dual_encoder", "clip"])
def test_a_new_model_begins_as_in_the_paper(name):
    model, objective = pairs.MODELS[name](), SigLIP()
    TransferModel(model, {"siglip": objective}, "nothing")
    bias = model.logit_bias if name == "siglip" else objective.logit_bias
    assert model.logit_scale.item() == pytest.approx(math.log(10)) and bias.item() == -10.0


def test_a_trained_model_goes_on_and_a_keyword_wins():
    model = pairs.siglip()
    torch.nn.init.constant_(model.logit_scale, 4.7)
    torch.nn.init.constant_(model.logit_bias, -12.9)
    wrapped = TransferModel(model, {"siglip": SigLIP()}, "nothing")
    wrapped.after_step()
    assert model.logit_scale.item() == pytest.approx(4.7) and model.logit_bias.item() == pytest.approx(-12.9)
    bounded = TransferModel(model, {"siglip": SigLIP(temperature=0.5, bias=-1.0, max_scale=1.5)}, "nothing")
    assert model.logit_scale.item() == pytest.approx(math.log(2)) and model.logit_bias.item() == -1.0
    bounded.after_step()
    assert model.logit_scale.item() == pytest.approx(math.log(1.5))


@pytest.mark.parametrize("keywords", [{"temperature": 0.0}, {"max_scale": 0.1}, {"weight": -0.1}])
def test_keywords_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        SigLIP(**keywords)
