import copy

import pytest
import torch
from torch import nn

from hf_transfer.modeling.surgery import Sidecar, keep_sidecar, modules_where, reclass, sidecars_of
from tests import tiny


class Doubled:
    def forward(self, states):
        return self.factor * super().forward(states)


def test_a_module_gets_another_forward_and_keeps_its_tensors():
    model = tiny.vit()
    before, head = model.state_dict(), model.classifier
    pixels = torch.randn(2, 1, 14, 14)
    expected = model.eval()(pixels).logits
    reclass(head, Doubled, factor=2.0)
    assert model.classifier is head and isinstance(head, nn.Linear)
    torch.testing.assert_close(model(pixels).logits, 2 * expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    torch.testing.assert_close(copy.deepcopy(model)(pixels).logits, 2 * expected)


def test_what_stands_beside_a_model_is_no_part_of_its_state():
    model = tiny.vit()
    names = list(model.state_dict())
    state = Sidecar()
    state.weight = nn.Parameter(torch.ones(3))
    keep_sidecar(model, "one", state)
    assert sidecars_of(model) == {"one": state} and list(model.state_dict()) == names
    assert sidecars_of(tiny.with_lora(model)) == {"one": state}
    with pytest.raises(ValueError, match="converted by `one` before"):
        keep_sidecar(model, "one", Sidecar())
    assert sidecars_of(tiny.vit()) == {}


def test_modules_are_found_by_what_they_are():
    found = modules_where(tiny.vit(), lambda one: isinstance(one, nn.Conv2d))
    assert list(found) == ["vit.embeddings.patch_embeddings.projection"]
