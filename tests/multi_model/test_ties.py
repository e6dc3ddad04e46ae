import numpy as np
import pytest
import torch

from hf_transfer.multi_model import merge_ties
from tests import tiny
from tests.multi_model.test_task_arithmetic import HEAD, vits


def naive(start: np.ndarray, models: list[np.ndarray], density: float) -> np.ndarray:
    """The merged task vector, parameter by parameter."""
    vectors = []
    for model in models:
        vector = model - start
        smallest = np.sort(np.abs(vector))[-int(density * len(vector))]
        vectors.append(np.where(np.abs(vector) >= smallest, vector, 0))
    merged = np.zeros_like(start)
    for place in range(len(start)):
        values = [vector[place] for vector in vectors]
        sign = 1 if sum(values) >= 0 else -1
        agreeing = [value for value in values if value * sign > 0]
        merged[place] = np.mean(agreeing) if agreeing else 0
    return merged


def flat(model, names) -> np.ndarray:
    state = model.state_dict()
    return torch.cat([state[name].flatten() for name in names]).double().numpy()


@pytest.mark.parametrize("density, scale", [(0.2, 1.0), (0.5, 0.7)])
def test_value_against_the_formula(density, scale):
    base, *models = vits(4)
    merged = merge_ties(models, base, density=density, scale=scale).model
    names = [name for name in base.state_dict() if name not in HEAD]
    start = flat(base, names)
    expected = start + scale * naive(start, [flat(model, names) for model in models], density)
    np.testing.assert_allclose(flat(merged, names), expected, rtol=1e-5, atol=1e-6)
    for name in HEAD:
        torch.testing.assert_close(merged.state_dict()[name], sum(m.state_dict()[name] for m in models) / 3)


def test_a_dissenter_is_outvoted_and_small_changes_are_dropped():
    base = tiny.vit()
    models = vits(3)
    for model, large in zip(models, (2.0, 4.0, -3.0)):
        model.load_state_dict(base.state_dict())
        with torch.no_grad():
            model.vit.layernorm.bias += 1e-3
            model.vit.layernorm.weight += large
    share = 16 / sum(value.numel() for value in base.vit.parameters())
    merged = merge_ties(models, base, density=share * 1.01).model.vit
    torch.testing.assert_close(merged.layernorm.weight, base.vit.layernorm.weight + 3.0)
    torch.testing.assert_close(merged.layernorm.bias, base.vit.layernorm.bias)


@pytest.mark.parametrize("density, message", [(0.0, "`density` should be positive"), (1.0, r"should be in \(0, 1\)")])
def test_an_invalid_keyword_raises(density, message):
    with pytest.raises(ValueError, match=message):
        merge_ties([tiny.vit()], tiny.vit(), density=density)
    with pytest.raises(ValueError, match="`scale` should be positive"):
        merge_ties([tiny.vit()], tiny.vit(), scale=-1.0)
