"""Boxes that a teacher is sure of, and the student's loss against them."""

import pytest
import torch

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.data.visits import seed_of
from hf_transfer.domain_adaptation.unbiased_teacher import UnbiasedTeacher, strongly_changed, sure_boxes
from hf_transfer.modeling.readouts import choose_readout
from tests.domain_adaptation.test_dacs import segformer
from tests.modeling.test_detection_readouts import MODELS, SIZE, make


def made(kind="yolos", **keywords):
    model = make(kind)
    objective = UnbiasedTeacher(**{"burn_in": 0.0, "threshold": 0.5, **keywords})
    readout = choose_readout(model)
    objective.build(BuildContext(model, readout.feature_dim, readout.num_outputs, readout))
    return objective, model


def view_of(model, progress=0.5, domain=(0, 1, 1)) -> View:
    pixels = torch.randn(3, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(3))
    outputs = {"logits": model(pixel_values=pixels).logits}
    units = torch.tensor(domain).repeat_interleave(outputs["logits"].shape[1])
    return View(domain=units, outputs=outputs, inputs={"pixel_values": pixels}, model=model, progress=progress)


def test_boxes_are_those_of_sure_classes():
    boxes = torch.rand(1, 3, 4)
    one_of = torch.tensor([[[4.0, 0.0, 0.0], [0.0, 0.0, 9.0], [0.0, 3.0, 0.0]]])  # two classes, and no object
    (table,) = sure_boxes(one_of, boxes, 2, 0.6)
    assert table[:, 0].tolist() == [0, 1] and torch.equal(table[:, 1:], boxes[0, [0, 2]])
    several = torch.tensor([[[0.5, 2.0], [-1.0, -2.0], [3.0, 0.0]]])
    (table,) = sure_boxes(several, boxes, 2, 0.6)
    assert table[:, 0].tolist() == [1, 0] and torch.equal(table[:, 1:], boxes[0, [0, 2]])
    assert len(sure_boxes(several, boxes, 2, 0.99)[0]) == 0


@pytest.mark.parametrize("kind", MODELS)
def test_the_loss_is_the_detectors_own_on_changed_target_pictures(kind):
    objective, model = made(kind)
    view = view_of(model)
    loss = objective(view)
    pixels = view.inputs["pixel_values"][1:]
    answers = objective.teacher(pixel_values=pixels)
    tables = sure_boxes(answers.logits, answers.pred_boxes, 2, 0.5)
    kept = [place for place, table in enumerate(tables) if len(table)]
    assert kept, "nothing is compared"
    generator = torch.Generator().manual_seed(seed_of(repr(view.progress).encode()))
    strong = strongly_changed(pixels[kept], 0.5, 0.25, generator)
    labels = [{"class_labels": tables[k][:, 0].long(), "boxes": tables[k][:, 1:]} for k in kept]
    expected = model(pixel_values=strong, labels=labels).loss
    torch.testing.assert_close(loss, expected)
    moving = [one for one in model.parameters() if one.requires_grad]
    found, wanted = (torch.autograd.grad(one, moving, allow_unused=True) for one in (loss, expected))
    for one, other in zip(found, wanted, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other)
    assert objective.parts["boxes"] == sum(map(len, tables)) / 2


def test_nothing_is_taught_before_the_burn_in_without_a_sure_box_or_without_a_target():
    objective, model = made(burn_in=0.6)
    assert objective(view_of(model)) == 0 and objective(view_of(model, progress=0.7)) > 0
    assert objective(view_of(model, progress=0.7, domain=(0, 0, 0))) == 0
    objective, model = made(threshold=0.999)
    view = view_of(model)
    assert objective(view) == 0 and objective(view).requires_grad


def test_strong_pictures_keep_their_places_and_lose_a_square():
    pixels = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(0))
    changed = strongly_changed(pixels, 0.0, 0.5, torch.Generator().manual_seed(1))
    same = (changed - pixels).abs().amax(dim=1) < 1e-5
    assert same.any() and not same.all() and (~same).sum(dim=(1, 2)).max() <= 64
    again = strongly_changed(pixels, 0.0, 0.5, torch.Generator().manual_seed(1))
    assert torch.equal(changed, again)
    assert not torch.allclose(strongly_changed(pixels, 0.5, 0.0, torch.Generator().manual_seed(1)), pixels)


def test_the_teacher_is_a_moving_average():
    objective, model = made()
    before = [one.clone() for one in objective.teacher.module.parameters()]
    with torch.no_grad():
        for one in model.parameters():
            one.add_(1.0)
    objective.after_step(model)
    for old, new, now in zip(before, objective.teacher.module.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(new, 0.5 * old + 0.5 * now)
    assert objective.steps == 1


def test_what_it_is_not_for_is_said():
    with pytest.raises(ValueError, match="`threshold` should be"):
        UnbiasedTeacher(threshold=1.0)
    model = segformer()
    readout = choose_readout(model)
    with pytest.raises(ValueError, match="trains the boxes of a detector, and the readout `Dense` gives none"):
        UnbiasedTeacher().build(BuildContext(model, 8, 4, readout))
