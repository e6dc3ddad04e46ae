import copy

import pytest
import torch
from transformers import AutoModelForImageClassification, AutoModelForSequenceClassification

from hf_transfer.multi_model import HubPathway
from hf_transfer.multi_model.hub_pathway import usage
from tests import tiny


def images(top=2):
    torch.manual_seed(0)
    models = [tiny.vit(initializer_range=0.3), tiny.resnet(), tiny.flowformer()]
    return HubPathway.of([model.eval() for model in models], top).eval(), {"pixel_values": torch.randn(6, 1, 14, 14)}


def texts(top=1):
    torch.manual_seed(0)
    inputs = tiny.batch_of(tiny.text_rows())
    del inputs["labels"]
    return HubPathway.of([tiny.bert(initializer_range=0.3), tiny.gpt2()], top).eval(), inputs


def features_of(model, inputs):
    """The input of the last linear layer, row by row."""
    head = getattr(model, "classifier", None) or model.score
    head = head[-1] if isinstance(head, torch.nn.Sequential) else head
    seen = []
    handle = head.register_forward_hook(lambda module, args, output: seen.append(args[0]))
    logits = model(**inputs).logits
    handle.remove()
    if seen[0].ndim == 3:  # a decoder scores every token and answers with the last real one
        last = inputs["attention_mask"].sum(1) - 1
        return seen[0][torch.arange(len(last)), last], logits
    return seen[0], logits


def naive(model, inputs, noise=None):
    """The formula with every model run on every row."""
    scores, scale = model.hub.generator(inputs)
    scores = scores if noise is None else scores + noise * torch.nn.functional.softplus(scale)
    weights = torch.zeros_like(scores)
    for row in range(len(scores)):
        kept = scores[row].argsort(descending=True)[: model.config.top]
        for place in kept:
            weights[row, place] = scores[row, place].exp() / scores[row, kept].exp().sum()
    blocks, heads = [], []
    for place, member in enumerate(model.hub.members):
        features, logits = features_of(member, inputs)
        blocks.append(weights[:, [place]] * features)
        heads.append((weights[:, [place]] > 0) * logits)
    return model.classifier(torch.cat(blocks, dim=1)), weights, torch.stack(heads, dim=1)


@pytest.mark.parametrize("make", [images, texts])
@pytest.mark.parametrize("top", [1, 2])
def test_value_and_gradient_against_the_formula(make, top):
    model, inputs = make(top)
    outputs, (logits, weights, heads) = model(**inputs), naive(model, inputs)
    torch.testing.assert_close(outputs.logits, logits, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(outputs.weights, weights)
    torch.testing.assert_close(outputs.member_logits, heads, rtol=1e-4, atol=1e-5)
    assert (outputs.active.sum(1) == top).all() and torch.equal(outputs.active > 0, weights > 0)
    wanted = [*model.hub.generator.parameters(), *model.classifier.parameters()]
    measure = torch.linspace(-1, 1, logits.numel()).reshape(logits.shape)
    one = torch.autograd.grad((outputs.logits * measure).sum(), wanted, allow_unused=True)
    two = torch.autograd.grad((logits * measure).sum(), wanted, allow_unused=True)
    for ours, theirs in zip(one, two):
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)


def test_only_the_chosen_models_run_on_the_rows_that_chose_them():
    model, inputs = images(top=1)
    rows = {}
    for place, member in enumerate(model.hub.members):
        member.register_forward_hook(
            lambda _, args, kwargs, out, place=place: rows.update({place: len(kwargs["pixel_values"])}),
            with_kwargs=True,
        )
    active = model(**inputs).active
    assert rows == {place: int(count) for place, count in enumerate(active.sum(0)) if count}
    assert sum(rows.values()) == 6
    torch.testing.assert_close(usage(model, [inputs, inputs]), active.mean(0))


def test_a_model_that_no_row_chose_has_a_gradient_of_zero():
    model, inputs = images(top=1)
    with torch.no_grad():
        model.hub.generator.scores.bias[0] += 100
    model.train()(**inputs, labels=torch.arange(6)).loss.backward()
    first, *rest = model.hub.members
    assert any(one.grad.any() for one in first.vit.parameters())
    left_out = [one.grad for member in rest for one in member.parameters()]
    assert left_out and all(grad is not None and not grad.any() for grad in left_out)


def test_noise_moves_the_choice_in_training_alone():
    model, inputs = images()
    assert torch.equal(model(**inputs).weights, model(**inputs).weights)
    for member in model.hub.members:
        member.eval()
    model.hub.training = True
    generator = torch.Generator().manual_seed(int(model.hub.noise_seed) + int(model.hub.noises))
    noisy, next_one = model(**inputs), model(**inputs)
    _, weights, _ = naive(model, inputs, noise=torch.randn(6, 3, generator=generator))
    torch.testing.assert_close(noisy.weights, weights)
    assert not torch.equal(next_one.weights, weights) and model.hub.noises == 2
    assert not torch.allclose(noisy.weights, model.eval()(**inputs).weights)


@pytest.mark.parametrize(
    "make, auto", [(images, AutoModelForImageClassification), (texts, AutoModelForSequenceClassification)]
)
def test_a_folder_holds_the_whole(make, auto, tmp_path):
    model, inputs = make()
    model.save_pretrained(tmp_path)
    for loader in (HubPathway, auto):
        loaded, report = loader.from_pretrained(tmp_path, output_loading_info=True)
        assert not any(report.values()) and isinstance(loaded, HubPathway)
        assert torch.equal(loaded(**inputs).logits, model(**inputs).logits)
    assert torch.equal(copy.deepcopy(model)(**inputs).logits, model(**inputs).logits)


def test_the_loss_is_the_tasks():
    model, inputs = images()
    labels = torch.arange(6)
    outputs = model(**inputs, labels=labels)
    torch.testing.assert_close(outputs.loss, torch.nn.functional.cross_entropy(outputs.logits, labels))


def test_bad_input_raises():
    models = [tiny.vit(), tiny.resnet()]
    for top in (0, 3):
        with pytest.raises(
            ValueError, match=f"`top` should be from 1 to 2, the number of models in the hub, got {top}"
        ):
            HubPathway.of(models, top)
    with pytest.raises(ValueError, match="same number of labels"):
        HubPathway.of([tiny.vit(), tiny.vit(num_labels=3)])
    with pytest.raises(ValueError, match="at least one member"):
        HubPathway.of([])
