import pytest
import torch

from hf_transfer.domain_generalization.mix_style import EPS, Mixer, convert, mix_styles
from tests import tiny


def naive(states, order, share, lengths=None):
    """Row by row, channel by channel."""
    by_channel = states.flatten(2).transpose(1, 2) if states.ndim == 4 else states
    rows = []
    for b, row in enumerate(by_channel):
        here, there = (
            one[: None if lengths is None else lengths[i]] for i, one in ((b, row), (order[b], by_channel[order[b]]))
        )
        mean, other_mean = here.detach().mean(0), there.detach().mean(0)
        deviation, other_deviation = ((one.detach().var(0, correction=0) + EPS).sqrt() for one in (here, there))
        gamma = share[b] * deviation + (1 - share[b]) * other_deviation
        beta = share[b] * mean + (1 - share[b]) * other_mean
        rows.append(gamma * (row - mean) / deviation + beta)
    mixed = torch.stack(rows)
    return mixed.transpose(1, 2).reshape(states.shape) if states.ndim == 4 else mixed


@pytest.mark.parametrize("shape, masked", [((5, 3, 4, 4), False), ((5, 6, 3), False), ((5, 6, 3), True)])
def test_value_and_gradient_against_the_formula(shape, masked):
    torch.manual_seed(0)
    states, order, share = torch.randn(shape) * 3 + 1, torch.randperm(5), torch.rand(5)
    lengths = [6, 2, 5, 3, 4] if masked else None
    real = (torch.arange(6) < torch.tensor(lengths)[:, None]).float().unsqueeze(-1) if masked else None
    first, second = states.clone().requires_grad_(), states.clone().requires_grad_()
    mixed, expected = mix_styles(first, order, share, real), naive(second, order, share, lengths)
    torch.testing.assert_close(mixed, expected, atol=1e-5, rtol=1e-4)
    weights = torch.randn(shape)
    (mixed * weights).sum().backward()
    (expected * weights).sum().backward()
    torch.testing.assert_close(first.grad, second.grad, atol=1e-5, rtol=1e-4)


def test_a_whole_share_of_ones_own_style_changes_nothing():
    states = torch.randn(4, 3, 5, 5)
    torch.testing.assert_close(mix_styles(states, torch.tensor([1, 2, 3, 0]), torch.ones(4)), states)


@pytest.mark.parametrize("name", ["resnet", "vit", "flowformer", "convnext"])
def test_it_works_in_training_only_and_its_draws_follow_the_seed(name):
    torch.manual_seed(0)
    model = tiny.IMAGE_MODELS[name]()
    pixels = torch.randn(4, 1, 14, 14)
    evaluated, trained = model.eval()(pixels).logits, model.train()(pixels).logits
    assert convert(model, p=1.0) is model
    first, second, again = (draw(model.train(), pixels, seed) for seed in (1, 2, 1))
    assert torch.equal(first, again) and not torch.allclose(first, second) and not torch.allclose(first, trained)
    if name != "resnet":  # whose batch norms have moved since
        torch.testing.assert_close(model.eval()(pixels).logits, evaluated)
    never = convert(tiny.IMAGE_MODELS[name](), p=0.0).train()
    assert torch.equal(draw(never, pixels, 1), draw(never, pixels, 2))


def draw(model, pixels, seed):
    torch.manual_seed(seed)
    return model(pixels).logits.detach()


def test_padding_does_not_count():
    torch.manual_seed(0)
    model = convert(tiny.bert(), p=1.0).train()
    tokens = torch.randint(5, 200, (4, 6))
    mask = torch.ones_like(tokens)
    torch.manual_seed(1)
    short = model(input_ids=tokens, attention_mask=mask).logits
    torch.manual_seed(1)
    tokens, mask = (torch.nn.functional.pad(value, (0, 3)) for value in (tokens, mask))
    padded = model(input_ids=tokens, attention_mask=mask).logits
    torch.testing.assert_close(padded, short, atol=1e-5, rtol=1e-4)


def test_gradient_checkpointing_changes_no_result():
    torch.manual_seed(0)
    model, pixels = convert(tiny.vit(), p=1.0).train(), torch.randn(4, 1, 14, 14)
    gradients = []
    for checkpointing in (False, True):
        if checkpointing:
            model.gradient_checkpointing_enable()
        model.zero_grad()
        torch.manual_seed(1)
        model(pixels).logits.square().sum().backward()
        gradients.append([parameter.grad.clone() for parameter in model.parameters() if parameter.grad is not None])
    assert len(gradients[0]) == len(gradients[1])
    for plain, recomputed in zip(*gradients):
        torch.testing.assert_close(plain, recomputed)


def test_layers_may_be_named_or_counted():
    def hooked(model):
        modules = model.named_modules()
        return [name for name, one in modules if any(isinstance(h, Mixer) for h in one._forward_hooks.values())]

    assert len(hooked(convert(tiny.vit(), layers=[0, 1]))) == 2
    assert hooked(convert(tiny.resnet(), layers=[1])) == ["resnet.encoder.stages.1"]
    assert hooked(convert(tiny.resnet(), layers=["resnet.embedder"])) == ["resnet.embedder"]


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"p": 1.5}, "`p` should be in"),
        ({"alpha": 0}, "`alpha` should be positive"),
        ({"layers": [2]}, "`layers` should be places from 0 to 1 or names .*, got 2"),
        ({"layers": ["nowhere"]}, "got 'nowhere'"),
    ],
)
def test_an_invalid_keyword_raises(keywords, message):
    with pytest.raises(ValueError, match=message):
        convert(tiny.vit(), **keywords)


def test_twice_is_once_too_often():
    with pytest.raises(ValueError, match="converted by `mix_style` before"):
        convert(convert(tiny.vit()))
