"""Self-information maps and their discriminator against the formula."""

import math
from types import SimpleNamespace

import pytest
import torch

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.domain_adaptation.advent import ADVENT, MapDiscriminator, self_information
from hf_transfer.modeling.readouts import choose_readout
from tests.modeling.test_readouts import segformer, tagger


def make_view(rows=(0, 1, 1, 0), classes=3, side=8, seed=0) -> View:
    generator = torch.Generator().manual_seed(seed)
    logits = torch.randn(len(rows), classes, side, side, generator=generator).requires_grad_()
    domain = torch.tensor(rows).repeat_interleave(side * side)
    return View(domain=domain, outputs={"logits": logits}, progress=0.5)


def made(**keywords) -> ADVENT:
    torch.manual_seed(0)
    objective = ADVENT(**{"width": 4, "depth": 2, **keywords})
    objective.build(BuildContext(SimpleNamespace(), 5, 3))
    return objective


def naive(objective, view):
    p = view.outputs["logits"].softmax(dim=1)
    maps = -p * p.log()
    d = objective.discriminator(maps).sigmoid()
    source, target = d[[0, 3]], d[[1, 2]]
    return (-source.log()).mean() / 2 + (-(1 - target).log()).mean() / 2, maps


def test_value_and_gradients_against_the_formula():
    objective, view, other = made(reversal=0.25, min_entropy=0.0), make_view(), make_view()
    loss = objective(view)
    loss.backward()
    descent = [parameter.grad.clone() for parameter in objective.parameters()]
    objective.zero_grad()
    expected, _ = naive(objective, other)
    expected.backward()
    assert loss.item() == pytest.approx(expected.item(), abs=1e-6)
    for mine, parameter in zip(descent, objective.parameters(), strict=True):
        assert torch.allclose(mine, parameter.grad, atol=1e-6)
    mine, theirs = view.outputs["logits"].grad, other.outputs["logits"].grad
    assert torch.allclose(mine[[1, 2]], -0.25 * theirs[[1, 2]], atol=1e-7)  # target maps ascend
    assert mine[[0, 3]].abs().max() == 0 and theirs[[0, 3]].abs().max() > 0  # source maps are detached


def test_the_entropy_term_is_one_where_nothing_is_known():
    view = View(domain=torch.tensor([0] * 64 + [1] * 64), outputs={"logits": torch.zeros(2, 3, 8, 8)})
    with_entropy, without = made(min_entropy=2.0)(view), made()(view)
    assert (with_entropy - without).item() == pytest.approx(2.0, abs=1e-5)
    assert self_information(torch.zeros(1, 3, 1, 1)).sum().item() == pytest.approx(math.log(3))


def test_small_maps_are_enlarged():
    assert MapDiscriminator(3, 4, 3)(torch.zeros(2, 3, 2, 5)).shape == (2, 1, 1, 1)
    assert MapDiscriminator(3, 4, 3)(torch.zeros(2, 3, 16, 24)).shape == (2, 1, 2, 3)


def test_a_batch_of_one_domain_gives_nothing():
    view = make_view(rows=(1, 1))
    loss = made()(view)
    loss.backward()
    assert loss == 0 and view.outputs["logits"].grad.abs().max() == 0


def test_wrong_keywords_and_models_are_refused():
    with pytest.raises(ValueError, match="`reversal` should be"):
        ADVENT(reversal=-1)
    with pytest.raises(ValueError, match="`depth` should be"):
        ADVENT(depth=0)
    model = tagger()
    with pytest.raises(ValueError, match="ADVENT needs images with a map of classes"):
        ADVENT().build(BuildContext(model, 8, 5, choose_readout(model)))
    model = segformer()
    ADVENT().build(BuildContext(model, 8, 4, choose_readout(model)))
