"""Mixed pictures and labels of DACS against the formula."""

import pytest
import torch
import torch.nn.functional as F
from transformers import ResNetConfig, UperNetConfig, UperNetForSemanticSegmentation

from hf_transfer.core.objective import IGNORED_LABEL, BuildContext, View
from hf_transfer.data.visits import seed_of
from hf_transfer.domain_adaptation.dacs import DACS, enlarged, grid_of, pasted_pixels
from hf_transfer.modeling.readouts import choose_readout
from tests.modeling.test_readouts import segformer, tagger


def made(**keywords):
    torch.manual_seed(0)
    model = segformer().eval()
    objective = DACS(**keywords)
    objective.build(BuildContext(model, 8, 4, choose_readout(model)))
    return objective, model


def make_view(model, progress=0.3) -> View:
    generator = torch.Generator().manual_seed(1)
    pixels = torch.randn(4, 3, 32, 32, generator=generator)
    labels = torch.randint(4, (4, 8, 8), generator=generator)
    labels[:2, :2] = IGNORED_LABEL
    labels[2:] = IGNORED_LABEL  # of the target
    domain = torch.tensor([0, 0, 1, 1]).repeat_interleave(64)
    outputs = {"logits": model(pixel_values=pixels).logits}
    inputs = {"pixel_values": pixels}
    return View(labels=labels.flatten(), domain=domain, outputs=outputs, inputs=inputs, model=model, progress=progress)


def naive(view, model, teacher, threshold):
    pixels, labels = view.inputs["pixel_values"], view.labels.reshape(4, 8, 8)
    pasted = pasted_pixels(labels[:2], torch.Generator().manual_seed(seed_of(repr(view.progress).encode())))
    with torch.no_grad():
        p = teacher(pixel_values=pixels[2:]).logits.softmax(dim=1)
    share = (p.max(dim=1).values > threshold).float().mean()
    total, count = 0.0, 0
    for row in range(2):
        mixed = pixels[2 + row].clone()
        for y in range(32):
            for x in range(32):
                if pasted[row, y // 4, x // 4]:
                    mixed[:, y, x] = pixels[row, :, y, x]
        logits = model(pixel_values=mixed[None]).logits[0]
        for y in range(8):
            for x in range(8):
                own = pasted[row, y, x]
                label = labels[row, y, x] if own else p[row, :, y, x].argmax()
                total = total + (1.0 if own else share) * -logits[:, y, x].log_softmax(dim=0)[label]
                count += 1
    return total / count


def test_value_and_gradients_against_the_formula():
    objective, model = made(threshold=0.27)
    view = make_view(model)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.mul_(1.1)  # so that the teacher is another model
    loss = objective(view)
    loss.backward()
    mine = [p.grad.clone() for p in model.parameters() if p.grad is not None]
    model.zero_grad()
    expected = naive(view, model, objective.teacher, 0.27)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-5)
    theirs = [p.grad for p in model.parameters() if p.grad is not None]
    assert all(torch.allclose(a, b, atol=1e-5) for a, b in zip(mine, theirs, strict=True))
    assert all(p.grad is None for p in objective.teacher.parameters())


def test_half_of_the_classes_are_pasted():
    labels = torch.tensor([[[0, 0, 1], [2, 2, IGNORED_LABEL]]])
    pasted = pasted_pixels(labels, torch.Generator().manual_seed(0))
    kept = labels[pasted].unique()
    assert len(kept) == 2 and IGNORED_LABEL not in kept
    assert all((labels == one).equal((labels == one) & pasted) for one in kept)  # a class goes as a whole
    assert not pasted_pixels(torch.full((1, 2, 2), IGNORED_LABEL), torch.Generator()).any()
    assert enlarged(pasted, torch.Size([4, 6])).shape == (1, 1, 4, 6)


def test_without_confidence_pixels_of_the_source_alone_count():
    objective, model = made(threshold=0.999)
    view = make_view(model)
    pasted = pasted_pixels(
        view.labels.reshape(4, 8, 8)[:2], torch.Generator().manual_seed(seed_of(repr(0.3).encode()))
    )
    pixels = view.inputs["pixel_values"]
    mixed = torch.where(enlarged(pasted, pixels.shape[-2:]), pixels[:2], pixels[2:])
    labels = view.labels.reshape(4, 8, 8)[:2]
    losses = F.cross_entropy(model(pixel_values=mixed).logits, labels, ignore_index=IGNORED_LABEL, reduction="none")
    assert torch.allclose(objective(view), (losses * pasted).mean(), atol=1e-6)


def test_logits_as_large_as_the_pictures_are_read_on_the_grid_of_the_units():
    """UperNet enlarges them; its labels are on the grid of its last layer."""
    torch.manual_seed(0)
    backbone = ResNetConfig(hidden_sizes=[8, 16], depths=[1, 1], embedding_size=8, out_features=["stage1", "stage2"])
    settings = {"use_auxiliary_head": False, "hidden_size": 8, "num_labels": 4}
    model = UperNetForSemanticSegmentation(UperNetConfig(backbone_config=backbone, **settings)).eval()
    objective = DACS(threshold=0.999)
    objective.build(BuildContext(model, 8, 4, choose_readout(model)))
    view = make_view(model)
    assert view.outputs["logits"].shape[-2:] == (32, 32) and grid_of(64, torch.Size([32, 32])) == (8, 8)
    assert grid_of(6 * 9, torch.Size([24, 36])) == (6, 9)
    labels, pixels = view.labels.reshape(4, 8, 8)[:2], view.inputs["pixel_values"]
    pasted = pasted_pixels(labels, torch.Generator().manual_seed(seed_of(repr(0.3).encode())))
    mixed = torch.where(enlarged(pasted, pixels.shape[-2:]), pixels[:2], pixels[2:])
    logits = F.interpolate(model(pixel_values=mixed).logits, size=(8, 8), mode="bilinear")
    losses = F.cross_entropy(logits, labels, ignore_index=IGNORED_LABEL, reduction="none")
    loss = objective(view)
    torch.testing.assert_close(loss, (losses * pasted).mean())
    loss.backward()
    assert model.decode_head.classifier.weight.grad.abs().sum() > 0


def test_the_teacher_follows_the_model():
    objective, model = made(momentum=0.5)
    before = next(objective.teacher.parameters()).clone()
    with torch.no_grad():
        next(model.parameters()).add_(1.0)
    objective.after_step(model)
    objective.after_step(model)
    assert torch.allclose(next(objective.teacher.parameters()), before + 0.75) and objective.steps == 2


def test_wrong_keywords_and_models_are_refused():
    with pytest.raises(ValueError, match="`threshold` should be"):
        DACS(threshold=1.0)
    model = tagger()
    with pytest.raises(ValueError, match="DACS needs images with a map of classes"):
        DACS().build(BuildContext(model, 8, 5, choose_readout(model)))
