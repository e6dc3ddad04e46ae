import numpy as np
import pytest
import torch
import torch.nn.functional as F
from datasets import load_from_disk

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.data.images import with_pixel_values
from hf_transfer.domain_adaptation.cyclegan import CycleGAN, as_picture, image_shape
from hf_transfer.hub import atomic_folder
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from tests import tiny
from tests.training.test_trainer import config, state_of

SMALL = {"width": 4, "blocks": 1, "buffer_size": 4}


def view_of(digits, model, progress=0.9) -> View:
    """Three source and five target images."""
    batch = tiny.batch_of(digits)
    domain = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    labels = batch["labels"].masked_fill(domain == 1, -100)
    inputs = {"pixel_values": batch["pixel_values"]}
    logits = model(**inputs).logits
    return View(torch.zeros(8, 1), logits, labels, domain, progress, inputs, model=model)


@pytest.fixture
def parts(digits):
    torch.manual_seed(0)
    model = tiny.vit().eval()
    gan = CycleGAN(weight=0.7, **SMALL)
    gan.build(BuildContext(model, 16, 10))
    return gan, view_of(digits, model)


def test_the_generators_loss_against_the_formula(parts):
    gan, view = parts
    translate, _, _ = gan.phases(0.0)
    pixels, is_source = view.inputs["pixel_values"], view.domain == 0
    s, t = pixels[is_source], pixels[~is_source]
    fake_t, fake_s = gan.to_target(s), gan.to_source(t)
    expected = ((gan.d_target(fake_t) - 1) ** 2).mean() + ((gan.d_source(fake_s) - 1) ** 2).mean()
    expected = expected + 10 * ((gan.to_source(fake_t) - s).abs().mean() + (gan.to_target(fake_s) - t).abs().mean())
    expected = expected + 5 * ((gan.to_source(s) - s).abs().mean() + (gan.to_target(t) - t).abs().mean())
    loss = translate.loss(view)
    torch.testing.assert_close(loss, expected)
    parameters = translate.parameters(view.model)
    assert {id(p) for p in parameters} == {id(p) for g in (gan.to_target, gan.to_source) for p in g.parameters()}
    for got, want in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)):
        torch.testing.assert_close(got, want)
    gan.identity_weight = 0.0
    assert translate.loss(view) < loss


def test_the_discriminators_loss_against_the_formula(parts):
    gan, view = parts
    images = gan.phases(0.0)[1]
    pixels, is_source = view.inputs["pixel_values"], view.domain == 0
    s, t = pixels[is_source], pixels[~is_source]
    with torch.no_grad():
        fake_t, fake_s = gan.to_target(s), gan.to_source(t)
    real = ((gan.d_target(t) - 1) ** 2).mean() + ((gan.d_source(s) - 1) ** 2).mean()
    # three translations fit into the buffer of four; of the five the last may be exchanged, so it is left to chance
    torch.manual_seed(2)
    loss = images.loss(view)
    torch.manual_seed(2)
    gan.past_source.filled.zero_()
    shown = gan.past_source.exchange(fake_s)
    fake = (gan.d_target(fake_t) ** 2).mean() + (gan.d_source(shown) ** 2).mean()
    torch.testing.assert_close(loss, 0.5 * (real + fake))
    assert gan.past_target.filled == 3 and gan.past_source.filled == 4
    loss.backward()
    assert all(p.grad is None for p in gan.to_target.parameters())
    assert all(p.grad is not None for p in images.parameters(view.model))


def test_the_model_learns_from_translated_images_in_its_time(parts):
    gan, view = parts
    task = gan.phases(0.0)[2]
    assert task.joins_task
    early = View(**{**view.__dict__, "progress": 0.4})
    assert task.loss(early).item() == 0.0
    is_source = view.domain == 0
    translated = gan.to_target(view.inputs["pixel_values"][is_source])
    expected = 0.7 * F.cross_entropy(view.model(translated).logits, view.labels[is_source])
    loss = task.loss(view)
    torch.testing.assert_close(loss, expected)
    loss.backward()
    assert all(p.grad is None for p in gan.parameters())
    assert view.model.classifier.weight.grad.any()


def test_joint_training_and_a_translated_data_set_on_the_disk(tmp_path, digits):
    """Every network moves, and the data set reads back as pictures with their labels."""
    torch.manual_seed(0)
    rows = tiny.two_domains(digits)
    objectives = {"cyclegan": CycleGAN(starts_at=0.0, **SMALL)}
    args = config(tmp_path / "run", max_steps=2)
    trainer = AlternatingTrainer(tiny.vit(), args, train_dataset=rows, objectives=objectives)
    start = state_of(trainer)
    trainer.train()
    for name, value in state_of(trainer).items():
        if value.ndim > 1 and name.endswith("weight"):
            assert not torch.equal(value, start[name]), f"{name} did not move"
    gan = trainer.method
    with atomic_folder(tmp_path / "translated") as staging:
        gan.translate(digits.select(range(10)), batch_size=4).save_to_disk(staging)
    translated = load_from_disk(tmp_path / "translated")
    assert translated["labels"][:] == digits.with_format(None)["labels"][:10]
    read = with_pixel_values(translated, tiny.IMAGE_SIZE, num_channels=1)[:10]["pixel_values"]
    expected = gan.to_target(digits[:10]["pixel_values"])
    assert (read - expected).abs().max() < 1.01 / 255


def test_pictures_are_the_pixels():
    levels = torch.tensor([[[0.0, 255.0], [17.0, 128.0]]])
    assert np.array_equal(np.asarray(as_picture(levels / 127.5 - 1)), levels[0].numpy())
    colour = torch.rand(3, 2, 5) * 2 - 1
    assert as_picture(colour).size == (5, 2) and as_picture(colour).mode == "RGB"


def test_what_cannot_be_translated_is_refused(parts, digits):
    gan, view = parts
    with pytest.raises(ValueError, match="a bert model has num_channels=None"):
        image_shape(tiny.bert().config, None)
    with pytest.raises(ValueError, match="and image size None: give `image_size`"):
        image_shape(tiny.resnet().config, None)
    assert image_shape(tiny.resnet().config, 14) == (1, 14)
    with pytest.raises(ValueError, match=r"translated in \[-1, 1\], and the first batch is in \[0.00, 2.00\]"):
        gan.prepare(None, [{"pixel_values": torch.tensor([0.0, 2.0])}])
    gan.prepare(None, [{"pixel_values": digits[:4]["pixel_values"]}])
    with pytest.raises(ValueError, match="needs source and target rows"):
        gan.translation(view.rows(view.domain == 0))
    with pytest.raises(ValueError, match="the batch has no `pixel_values`"):
        gan.translation(View(**{**view.__dict__, "inputs": {"input_ids": view.labels}}))


@pytest.mark.parametrize("keywords", [{"cycle_weight": -1.0}, {"blocks": 0}, {"starts_at": 1.0}])
def test_a_keyword_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        CycleGAN(**keywords)
