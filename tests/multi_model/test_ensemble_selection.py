import pytest
import torch
from torch.utils.data import DataLoader

from hf_transfer.multi_model import greedy_ensemble, load_members, predictions_of
from hf_transfer.multi_model.ensemble_selection import METRICS, accuracy, log_likelihood, negative_squared_error
from tests import tiny


def naive(predictions, labels, metric, rounds):
    """The best of all prefixes of greedy choices with replacement, by counting over lists."""
    chosen, stages = [], []
    for _ in range(rounds + 1):
        options = []
        for k in range(len(predictions)):
            mean = torch.stack([predictions[j] for j in [*chosen, k]]).mean(0)
            options.append(metric(mean, labels))
        chosen.append(options.index(max(options)))
        stages.append((max(options), list(chosen)))
    best = max(score for score, _ in stages)
    members = next(members for score, members in stages if score == best)
    return torch.tensor([members.count(k) / len(members) for k in range(len(predictions))])


@pytest.fixture
def held_out():
    generator = torch.Generator().manual_seed(0)
    labels = torch.randint(4, (60,), generator=generator)
    truth = torch.eye(4)[labels]
    logits = 1.5 * truth + 1.5 * torch.randn(5, 60, 4, generator=generator)
    return logits.softmax(-1).double(), labels


@pytest.mark.parametrize("metric", ["accuracy", "log_likelihood"])
def test_value_against_the_formula(held_out, metric):
    predictions, labels = held_out
    weights = greedy_ensemble(predictions, labels, metric, rounds=12)
    torch.testing.assert_close(weights.float(), naive(predictions, labels, METRICS[metric], 12))
    mean = (weights[:, None, None] * predictions).sum(0)
    assert METRICS[metric](mean, labels) >= max(METRICS[metric](one, labels) for one in predictions)
    assert weights.sum() == pytest.approx(1) and (weights > 0).sum() > 1


def test_metrics_against_the_formulas(held_out):
    predictions, labels = held_out
    assert accuracy(predictions[0], labels) == (predictions[0].argmax(1) == labels).float().mean().item()
    expected = -torch.nn.functional.nll_loss(predictions[0].log(), labels)
    assert log_likelihood(predictions[0], labels) == pytest.approx(expected.item())
    assert negative_squared_error(torch.tensor([[1.0], [3.0]]), torch.tensor([2.0, 3.0])) == pytest.approx(-0.5)


def test_a_model_that_is_always_right_is_chosen_alone(held_out):
    predictions, labels = held_out
    predictions = torch.cat([predictions, torch.eye(4)[labels].double()[None]])
    assert greedy_ensemble(predictions, labels, "log_likelihood").tolist() == [0, 0, 0, 0, 0, 1]


def test_two_numbers_that_err_on_either_side_are_averaged():
    labels = torch.linspace(-1, 1, 9)
    predictions = torch.stack([labels + 1, labels - 1, labels + 5])[..., None]
    weights = greedy_ensemble(predictions, labels, "negative_squared_error")
    torch.testing.assert_close(weights, torch.tensor([0.5, 0.5, 0.0]).double())


def test_a_start_of_several_models_and_bags(held_out):
    predictions, labels = held_out
    started = greedy_ensemble(predictions, labels, "log_likelihood", rounds=3, start=3)
    assert (started > 0).sum() >= 3
    bagged = [greedy_ensemble(predictions, labels, "log_likelihood", bags=20, seed=seed) for seed in (0, 0, 1)]
    assert torch.equal(bagged[0], bagged[1]) and not torch.equal(bagged[0], bagged[2])
    assert (bagged[0] > 0).all() and bagged[0].sum() == pytest.approx(1)


def test_predictions_of_saved_models(zoo, digits):
    models = load_members([zoo["first"], zoo["resnet"]])
    predictions, labels = predictions_of(models, DataLoader(digits, 24))
    batch = tiny.batch_of(digits, 64)
    assert predictions.shape == (2, 64, 10) and torch.equal(labels, batch["labels"])
    torch.testing.assert_close(predictions[1], models[1](batch["pixel_values"]).logits.softmax(1).detach())
    raw, _ = predictions_of(models, DataLoader(digits, 24), probabilities=False)
    torch.testing.assert_close(raw.softmax(-1), predictions)


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"metric": "f1"}, "`metric` should be one of"),
        ({"rounds": 0}, "`rounds` should be positive"),
        ({"bags": 0}, "`bags` should be positive"),
        ({"start": 6}, "`start` should be from 1 to 5, the number of models, got 6"),
        ({"labels": torch.zeros(3)}, "as many rows as `labels` \\(3\\), got \\[5, 60, 4\\]"),
    ],
)
def test_an_invalid_keyword_raises(held_out, keywords, message):
    predictions, labels = held_out
    with pytest.raises(ValueError, match=message):
        greedy_ensemble(predictions, **{"labels": labels, **keywords})
