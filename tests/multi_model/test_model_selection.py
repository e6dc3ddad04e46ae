import pytest
import torch

from hf_transfer.multi_model import greedy_selection
from hf_transfer.ranking import logme


@pytest.fixture
def hub():
    """Features of four models: two that see half of what makes the label each, a copy of one, and noise."""
    generator = torch.Generator().manual_seed(0)
    hidden = torch.randn(200, 2, generator=generator)
    labels = (hidden[:, 0] > 0).long() + 2 * (hidden[:, 1] > 0).long()

    def seen(place, noise):
        return hidden[:, [place]] + noise * torch.randn(200, 3, generator=generator)

    first, second = seen(0, 0.3), seen(1, 0.5)
    return [torch.randn(200, 4, generator=generator), first, first.clone(), second], labels


@pytest.mark.parametrize("kind", ["classes", "numbers"])
def test_value_against_logme_of_the_features_side_by_side(hub, kind):
    features, labels = hub
    labels = labels if kind == "classes" else torch.stack([features[1][:, 0], features[3].sum(1)], dim=1)
    chosen, scores = [], []
    while True:
        rest = [k for k in range(4) if k not in chosen]
        values = {k: logme(torch.cat([features[j] for j in (*chosen, k)], dim=1), labels) for k in rest}
        best = max(values, key=values.get) if values else None
        if best is None or (scores and values[best] <= scores[-1]):
            break
        chosen.append(best)
        scores.append(values[best])
    selection = greedy_selection(features, labels)
    assert selection.chosen == tuple(chosen) and selection.scores == pytest.approx(scores, rel=1e-9)


def test_models_that_complete_each_other_are_chosen_and_noise_is_not(hub):
    features, labels = hub
    assert greedy_selection(features, labels).chosen[:2] in ((1, 3), (2, 3), (3, 1), (3, 2))
    assert 0 not in greedy_selection(features, labels).chosen
    assert len(greedy_selection(features, labels, most=1).chosen) == 1


def test_bad_input_raises(hub):
    features, labels = hub
    for most in (0, 5):
        with pytest.raises(ValueError, match=f"`most` should be from 1 to 4, the number of models, got {most}"):
            greedy_selection(features, labels, most=most)
    with pytest.raises(ValueError, match="should have 200 rows of every model"):
        greedy_selection([features[0], features[1][:50]], labels)
    with pytest.raises(ValueError, match="should have 200 rows"):
        greedy_selection([], labels)
