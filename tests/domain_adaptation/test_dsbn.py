import copy

import pytest
import torch

from hf_transfer.core.objective import Objective
from hf_transfer.domain_adaptation.dsbn import DomainSpecific, convert
from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny

DOMAIN = torch.tensor([1, 0, 0, 1, 1, 0])


@pytest.fixture
def model():
    torch.manual_seed(0)
    return tiny.resnet()


@pytest.fixture
def pixels():
    return torch.randn(6, 1, 14, 14, generator=torch.Generator().manual_seed(0))


class Views(Objective):
    paper = "none"
    needs = frozenset({"views"})

    def forward(self, view):
        self.pair = view.logits.detach(), view.views[0].logits.detach()
        return view.logits.sum() * 0


def test_value_and_gradient_against_a_model_for_each_domain(model, pixels):
    apart = {domain: copy.deepcopy(model) for domain in (0, 1)}
    together = TransferModel(convert(model)).train()
    labels = torch.arange(6)
    expected = torch.empty(6, 10)
    for domain, one in apart.items():
        rows = domain == DOMAIN
        expected[rows] = one.train()(pixels[rows]).logits
    logits = together(pixel_values=pixels, domain=DOMAIN, labels=labels)
    torch.testing.assert_close(logits.logits, expected, atol=1e-5, rtol=1e-4)
    torch.nn.functional.cross_entropy(expected, labels).backward()
    logits.loss.backward()
    own, others = dict(model.named_parameters()), dict(sidecars_of(model)["dsbn"].norms.named_parameters())
    source, target = (dict(apart[domain].named_parameters()) for domain in (0, 1))
    tolerance = {"atol": 1e-5, "rtol": 1e-3}
    checked = 0
    for name, value in own.items():
        module, kind = name.rsplit(".", 1)
        if f"{module.replace('.', '_')}.0.{kind}" in others:
            torch.testing.assert_close(value.grad, target[name].grad, **tolerance)
            torch.testing.assert_close(
                others[f"{module.replace('.', '_')}.0.{kind}"].grad, source[name].grad, **tolerance
            )
            checked += 1
        else:
            torch.testing.assert_close(value.grad, source[name].grad + target[name].grad, **tolerance)
    assert checked == 12
    statistics = {name: value for name, value in model.state_dict().items() if "running" in name}
    for name, value in statistics.items():
        torch.testing.assert_close(value, apart[1].state_dict()[name])


def test_a_saved_folder_is_the_targets_model(model, pixels, tmp_path):
    names = list(model.state_dict())
    wrapped = TransferModel(convert(model))
    wrapped.train()(pixel_values=pixels, domain=DOMAIN)
    assert list(model.state_dict()) == names
    wrapped.save_pretrained(tmp_path)
    loaded = type(model).from_pretrained(tmp_path).eval()
    assert "Domain" not in type(loaded.resnet.embedder.embedder.normalization).__name__
    wrapped.eval()
    expected = wrapped(pixel_values=pixels).logits
    torch.testing.assert_close(loaded(pixels).logits, expected)
    target = wrapped(pixel_values=pixels, domain=torch.ones(6, dtype=torch.long)).logits
    torch.testing.assert_close(target, expected)
    assert not torch.allclose(wrapped(pixel_values=pixels, domain=torch.zeros(6)).logits, expected)
    again = TransferModel(convert(type(model)(model.config)))
    again.load_weights(tmp_path)
    for name, value in wrapped.state_dict().items():
        assert torch.equal(again.state_dict()[name], value), name


def test_both_views_of_a_row_have_its_domain(model, pixels):
    objective = Views()
    wrapped = TransferModel(convert(model), {"views": objective}).train()
    wrapped(pixel_values=pixels, view_pixel_values=pixels, domain=DOMAIN, labels=torch.zeros(6, dtype=torch.long))
    torch.testing.assert_close(*objective.pair, atol=1e-5, rtol=1e-4)


def test_several_domains(model, pixels):
    sidecar = sidecars_of(convert(model, num_domains=3, target=0))["dsbn"]
    assert sidecar.needs == {"environments"} and all(len(others) == 2 for others in sidecar.norms.values())
    wrapped = TransferModel(model).train()
    wrapped(pixel_values=pixels, domain=torch.tensor([0, 0, 1, 1, 2, 2]))
    embedded = next(module for module in model.modules() if isinstance(module, DomainSpecific))
    means = [embedded.running_mean, *(other.running_mean for other in embedded.others)]
    assert not torch.allclose(means[0], means[1]) and not torch.allclose(means[1], means[2])


def test_a_domain_too_many(model, pixels):
    with pytest.raises(ValueError, match="`domain` should be from 0 to 1, got"):
        TransferModel(convert(model))(pixel_values=pixels, domain=torch.arange(6))


@pytest.mark.parametrize("keywords", [{"num_domains": 1}, {"target": 2}, {"target": -1}])
def test_an_invalid_keyword_raises(model, keywords):
    with pytest.raises(ValueError, match="`num_domains` should be at least 2 and `target` below it"):
        convert(model, **keywords)


def test_a_model_without_batch_norms():
    with pytest.raises(ValueError, match="ViTForImageClassification has no batch norm"):
        convert(tiny.vit())
