from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.domain_adaptation.cycada import CyCADA
from hf_transfer.domain_adaptation.cyclegan import CycleGAN
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from tests import tiny
from tests.domain_adaptation.test_cyclegan import SMALL, view_of
from tests.training.test_trainer import config, state_of


@pytest.fixture
def parts(digits):
    """(CyCADA whose source model is another than the one in training, a view)."""
    torch.manual_seed(0)
    source, model = tiny.vit().eval(), tiny.vit().eval()
    method = CyCADA(semantic_weight=0.7, feature_weight=0.3, hidden_size=8, weight=0.5, **SMALL)
    method.build(BuildContext(source, 16, 10))
    view = view_of(digits, model)
    return method, View(**{**view.__dict__, "logits": view.logits.detach().requires_grad_()})


def halves(view):
    pixels, is_source = view.inputs["pixel_values"], view.domain == 0
    return pixels[is_source], pixels[~is_source]


def test_semantic_consistency_against_the_formula(parts):
    """Cross entropy of the translations against the source model's own classes, beside CycleGAN's loss."""
    method, view = parts
    source, target = halves(view)
    classify = method.source_model
    losses = [
        -classify(method.to_target(x[None])).logits[0].log_softmax(0)[classify(x[None]).logits.argmax()]
        for x in source
    ]
    kept = sum(losses) / len(source)
    losses = [
        -classify(method.to_source(x[None])).logits[0].log_softmax(0)[classify(x[None]).logits.argmax()]
        for x in target
    ]
    kept = kept + sum(losses) / len(target)
    loss = method.phases(0.9)[0].loss(view)
    expected = CycleGAN.translation(method, view) + 0.7 * kept
    torch.testing.assert_close(loss, expected)
    parameters = list(method.to_target.parameters())
    for got, want in zip(torch.autograd.grad(loss, parameters), torch.autograd.grad(expected, parameters)):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-6)


def test_the_adversarial_losses_against_their_formulas(parts):
    method, view = parts
    _, _, discriminate, task = method.phases(0.9)
    source, _ = halves(view)
    is_source = view.domain == 0
    d_source = method.discriminator(method.source_model(method.to_target(source)).logits).sigmoid()
    d_target = method.discriminator(view.logits[~is_source]).sigmoid()
    expected = -0.5 * d_source.log().mean() - 0.5 * (1 - d_target).log().mean()
    torch.testing.assert_close(discriminate.loss(view), expected)
    assert {id(p) for p in discriminate.parameters(None)} == {id(p) for p in method.discriminator.parameters()}
    translated = view.model(method.to_target(source)).logits
    expected = 0.5 * F.cross_entropy(translated, view.labels[is_source]) - 0.3 * d_target.log().mean()
    loss = task.loss(view)
    torch.testing.assert_close(loss, expected)
    (gradient,) = torch.autograd.grad(loss, view.logits)
    assert gradient[~is_source].any() and not gradient[is_source].any()


def test_a_translation_that_changes_nothing_keeps_the_classes(parts):
    method, view = parts
    method.to_target = method.to_source = torch.nn.Identity()
    source, target = halves(view)
    with torch.no_grad():
        method.source_model.module.classifier.weight.mul_(1e5)  # certain of its classes
    assert method.semantic_consistency(source, target).item() == pytest.approx(0.0, abs=1e-4)


def test_the_phases_in_their_time():
    method = CyCADA(source_share=0.2, starts_at=0.6)
    names = [[phase.name for phase in method.phases(progress)] for progress in (0.1, 0.2, 0.6)]
    assert names == [
        ["source"],
        ["translate", "discriminate_images", "task"],
        ["translate", "discriminate_images", "discriminate", "task"],
    ]


def test_training_moves_each_network_in_its_time(tmp_path, digits):
    torch.manual_seed(0)
    objectives = {"cycada": CyCADA(hidden_size=8, source_share=0.25, starts_at=0.5, **SMALL)}
    trainer = AlternatingTrainer(
        tiny.vit(), config(tmp_path), train_dataset=tiny.two_domains(digits), objectives=objectives
    )
    states = [state_of(trainer)]
    step = trainer.transfer_model.after_step

    def watched():
        step()
        states.append(state_of(trainer))

    trainer.transfer_model.after_step = watched
    trainer.train()

    def moved(name):
        name = f"{name}.weight"
        return [not torch.equal(before[name], after[name]) for before, after in pairwise(states)]

    own = "objectives.cycada."
    assert moved("model.classifier") == [True] * 4
    assert moved(f"{own}source_model.module.classifier") == [True, False, False, False]
    assert moved(f"{own}to_target.leave") == moved(f"{own}d_source.1") == [False, True, True, True]
    assert moved(f"{own}discriminator.0") == [False, False, True, True]


@pytest.mark.parametrize("keywords", [{"semantic_weight": -1.0}, {"hidden_size": 0}, {"source_share": 1.0}])
def test_a_keyword_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        CyCADA(**keywords)
