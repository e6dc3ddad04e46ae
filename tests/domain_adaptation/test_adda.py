import math

import pytest
import torch

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.domain_adaptation.adda import ADDA
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from tests import tiny
from tests.training.test_trainer import config, state_of


@pytest.fixture(scope="module")
def rows(digits):
    return tiny.two_domains(digits)


@pytest.fixture
def parts(digits):
    """(ADDA, source model, view of 3 source and 5 target rows by another model)."""
    torch.manual_seed(0)
    source, model = tiny.vit().eval(), tiny.vit().eval()
    adda = ADDA(hidden_size=8, source_share=0.0, weight=0.7)
    adda.build(BuildContext(source, feature_dim=16, num_labels=10, readout=choose_readout(source)))
    pixels = tiny.batch_of(digits)["pixel_values"]
    domain = torch.tensor([0, 1, 1, 0, 1, 0, 1, 1])
    features = model.vit(pixels).last_hidden_state[:, 0].detach().requires_grad_()
    return adda, source, View(features, model.classifier(features), domain=domain, inputs={"pixel_values": pixels})


def test_the_losses_against_their_formulas(parts):
    adda, source, view = parts
    discriminate, confuse = adda.phases(0.0)
    is_source = view.domain == 0
    with torch.no_grad():
        frozen = source.vit(view.inputs["pixel_values"]).last_hidden_state[:, 0]
    source_side = [adda.discriminator(row[None]).sigmoid() for row in frozen[is_source]]
    target_side = [adda.discriminator(row[None]).sigmoid() for row in view.features[~is_source]]
    loss = discriminate.loss(view)
    expected = 0.5 * sum(-d.log() for d in source_side) / 3 + 0.5 * sum(-(1 - d).log() for d in target_side) / 5
    torch.testing.assert_close(loss, expected.squeeze())
    fooled = confuse.loss(view)
    naive = 0.7 * sum(-d.log() for d in target_side) / 5
    torch.testing.assert_close(fooled, naive.squeeze())
    (gradient,) = torch.autograd.grad(fooled, view.features)
    (wanted,) = torch.autograd.grad(naive, view.features)
    torch.testing.assert_close(gradient, wanted)
    assert not gradient[is_source].any() and gradient[~is_source].any()


def test_the_source_model_follows_then_stands_still(tmp_path, rows):
    """Head and source model stay as the source training left them; the encoder and the discriminator go on."""
    torch.manual_seed(0)
    args = config(tmp_path, max_steps=4, save_strategy="steps", save_steps=2)
    trainer = AlternatingTrainer(tiny.vit(), args, train_dataset=rows, objectives={"adda": ADDA(hidden_size=8)})
    start = state_of(trainer)
    halfway = {}
    step = trainer.transfer_model.after_step

    def watched():
        step()
        halfway.setdefault(trainer.state.global_step, state_of(trainer))

    trainer.transfer_model.after_step = watched
    trainer.train()
    middle, end = halfway[2], state_of(trainer)
    for name, value in middle.items():
        if name.startswith("model."):
            copied = name.replace("model.", "objectives.adda.source_model.module.", 1)
            assert torch.equal(value, middle[copied]) and torch.equal(value, end[copied])
            assert torch.equal(value, end[name]) or "classifier" not in name
        if "discriminator" in name:
            assert torch.equal(value, start[name]) and not torch.equal(value, end[name])
    assert not torch.equal(middle["model.classifier.weight"], start["model.classifier.weight"])
    patches = "model.vit.embeddings.patch_embeddings.projection.weight"
    assert not torch.equal(middle[patches], end[patches])


def test_a_source_trained_start_needs_no_source_share():
    assert [phase.name for phase in ADDA(source_share=0.0).phases(0.0)] == ["discriminate", "confuse"]
    assert [phase.name for phase in ADDA(source_share=0.3).phases(0.29)] == ["source"]


def test_where_the_discriminator_knows_nothing_the_loss_is_log_two(parts):
    adda, _, view = parts
    with torch.no_grad():
        adda.discriminator[-2].weight.zero_()
        adda.discriminator[-2].bias.zero_()
    discriminate, confuse = adda.phases(0.0)
    assert discriminate.loss(view).item() == pytest.approx(math.log(2))
    assert confuse.loss(view).item() == pytest.approx(0.7 * math.log(2))


@pytest.mark.parametrize("keywords", [{"hidden_size": 0}, {"source_share": 1.0}, {"weight": -1.0}])
def test_a_keyword_out_of_range(keywords):
    with pytest.raises(ValueError, match=f"`{next(iter(keywords))}` should be"):
        ADDA(**keywords)


def test_a_batch_of_one_domain_is_refused(parts):
    adda, _, view = parts
    with pytest.raises(ValueError, match="needs source and target rows"):
        adda.phases(0.0)[1].loss(view.rows(view.domain == 0))


def test_the_source_features_have_dropout_as_the_target_features_have(digits):
    """Without it a discriminator tells the domains by the zeros."""
    adda = ADDA(hidden_size=8)
    model = tiny.vit(hidden_dropout_prob=0.5)
    adda.build(BuildContext(model, feature_dim=16, num_labels=10, readout=choose_readout(model)))
    inputs = {"pixel_values": tiny.batch_of(digits)["pixel_values"]}
    view = View(torch.zeros(8, 16), torch.zeros(8, 10), inputs=inputs)
    adda.train()
    assert not torch.equal(adda.source_features(view), adda.source_features(view))
    adda.eval()
    assert torch.equal(adda.source_features(view), adda.source_features(view))
