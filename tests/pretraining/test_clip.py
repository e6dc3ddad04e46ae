import math

import pytest
import torch
import torch.nn.functional as F
from transformers.models.clip.modeling_clip import image_text_contrastive_loss

from hf_transfer.pretraining.clip import CLIP, clip_loss
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.pretraining import pairs


def embeddings(rows=5, width=7, seed=0):
    generator = torch.Generator().manual_seed(seed)
    made = torch.randn(2, rows, width, generator=generator, dtype=torch.float64)
    return [one.clone().requires_grad_() for one in F.normalize(made, dim=2)]


def naive(images, texts, scale):
    """Row by row, column by column."""
    rows, total = len(images), 0.0
    for i in range(rows):
        to_texts = [scale * (images[i] * texts[j]).sum() for j in range(rows)]
        to_images = [scale * (images[j] * texts[i]).sum() for j in range(rows)]
        for logits in (to_texts, to_images):
            total = total - (logits[i] - torch.stack(logits).exp().sum().log()) / (2 * rows)
    return total


def test_value_and_gradient_against_the_formula():
    ours, theirs = embeddings(), embeddings()
    scale, other = (torch.tensor(9.0, dtype=torch.float64, requires_grad=True) for _ in range(2))
    loss, expected = clip_loss(*ours, scale), naive(*theirs, other)
    torch.testing.assert_close(loss, expected, rtol=1e-10, atol=1e-10)
    found = torch.autograd.grad(loss, [*ours, scale])
    for one, wanted in zip(found, torch.autograd.grad(expected, [*theirs, other])):
        torch.testing.assert_close(one, wanted, rtol=1e-9, atol=1e-10)


def test_it_is_the_loss_of_transformers():
    images, texts = embeddings(rows=9)
    assert clip_loss(images, texts, 14.0).item() == pytest.approx(
        image_text_contrastive_loss(14.0 * texts @ images.T).item(), abs=1e-9
    )


@pytest.mark.parametrize("name", ["clip", "dual_encoder"])
def test_a_models_own_loss_and_gradients_come_out(name):
    model, twin = pairs.MODELS[name](), pairs.MODELS[name]()
    batch = pairs.batch_of()
    ours = TransferModel(model, {"clip": CLIP()}, "nothing").train()(**batch).loss
    theirs = twin.train()(**batch, return_loss=True).loss
    assert ours.item() == pytest.approx(theirs.item(), abs=1e-6)
    ours.backward(), theirs.backward()
    moved = 0
    for (key, value), other in zip(model.named_parameters(), twin.parameters()):
        if other.grad is not None:
            torch.testing.assert_close(value.grad, other.grad, rtol=1e-4, atol=1e-6, msg=key)
            moved += int(other.grad.abs().max() > 0)
    assert moved > 20 and model.logit_scale.grad.abs() > 0


def test_pairs_that_all_look_alike_are_guessed():
    same = F.normalize(torch.ones(6, 4), dim=1)
    assert clip_loss(same, same, 50.0).item() == pytest.approx(math.log(6), abs=1e-5)
    eye = torch.eye(6)
    assert clip_loss(eye, eye, 100.0).item() < 1e-6


def test_the_scale_is_the_models_and_is_held_after_each_step():
    model, objective = pairs.dual_encoder(), CLIP()
    wrapped = TransferModel(model, {"clip": objective}, "nothing")
    assert model.logit_scale.item() == pytest.approx(2.6592) and not list(objective.parameters())
    for value, held in ((9.0, math.log(100)), (-1.0, 0.0), (3.0, 3.0)):
        torch.nn.init.constant_(model.logit_scale, value)
        wrapped.after_step()
        assert model.logit_scale.item() == pytest.approx(held)
    free = TransferModel(pairs.dual_encoder(), {"clip": CLIP(max_scale=None)}, "nothing")
    torch.nn.init.constant_(free.model.logit_scale, 9.0)
    free.after_step()
    assert free.model.logit_scale.item() == 9.0


def test_a_temperature_begins_where_it_is_asked_to():
    model = pairs.dual_encoder()
    TransferModel(model, {"clip": CLIP(temperature=0.2)}, "nothing")
    assert model.logit_scale.exp().item() == pytest.approx(5.0)


def test_a_model_without_a_scale_gets_one():
    model = pairs.dual_encoder()
    del model.logit_scale
    objective = CLIP(max_scale=10.0)
    wrapped = TransferModel(model, {"clip": objective}, "nothing")
    assert objective.logit_scale.exp().item() == pytest.approx(1 / 0.07)
    assert "objectives.clip.logit_scale" in wrapped.state_dict()
    wrapped.after_step()
    assert objective.logit_scale.exp().item() == pytest.approx(10.0)


@pytest.mark.parametrize("keywords", [{"temperature": 0.0}, {"temperature": -1.0}, {"max_scale": 0.5}, {"weight": -1}])
def test_keywords_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        CLIP(**keywords)


def test_a_model_with_one_tower_is_refused():
    with pytest.raises(ValueError, match="a ViTForImageClassification has no two: load a CLIPModel"):
        TransferModel(tiny.vit(), {"clip": CLIP()})


def test_a_frozen_scale_is_kept_and_not_set():
    model = pairs.dual_encoder()
    model.logit_scale.requires_grad_(False)
    TransferModel(model, {"clip": CLIP()}, "nothing").after_step()
    assert model.logit_scale.item() == pytest.approx(2.6592)
    with pytest.raises(ValueError, match="the model's `logit_scale` is frozen"):
        TransferModel(model, {"clip": CLIP(temperature=0.1)}, "nothing")
