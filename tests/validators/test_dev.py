import numpy as np
import pytest
import torch
from sklearn.linear_model import LogisticRegression

from hf_transfer.validators.dev import controlled_mean, density_ratios, dev
from hf_transfer.validators.rows import split_halves


def shifted(count=2000, shift=1.0, seed=0):
    """Source N(0, 1), target N(shift, 1) in the first of two features: the true ratio is exp(shift f - shift^2/2)."""
    generator = np.random.default_rng(seed)
    features = generator.standard_normal((2 * count, 2))
    domain = np.repeat([0, 1], count)
    features[domain == 1, 0] += shift
    return features, domain


def test_the_density_ratio_is_found():
    features, domain = shifted()
    true = np.exp(features[domain == 0, 0] - 0.5)
    found = density_ratios(features, domain)
    assert np.corrcoef(np.log(found), np.log(true))[0, 1] > 0.99
    assert found.mean() == pytest.approx(1.0, abs=0.15)


def test_each_half_is_weighed_by_the_classifier_of_the_other():
    features, domain = shifted(20)
    domain[:7] = 1  # 13 source rows and 27 target rows
    first = split_halves(domain, 4)
    expected = np.zeros(40)
    for fitted, weighed in ((first, ~first), (~first, first)):
        mean, deviation = features[fitted].mean(axis=0), features[fitted].std(axis=0)
        classifier = LogisticRegression().fit((features[fitted] - mean) / deviation, domain[fitted])
        target = classifier.predict_proba((features[weighed] - mean) / deviation)[:, 1]
        sizes = [(domain[fitted] == value).sum() for value in (0, 1)]
        expected[weighed] = sizes[0] / sizes[1] * target / (1 - target)
    assert density_ratios(features, domain, 4) == pytest.approx(expected[domain == 0])


def test_a_row_far_out_has_a_ratio_that_is_finite():
    features, domain = shifted(20)
    features[0, 0], features[1, 0] = 1e6, -1e6
    logs = np.log(density_ratios(features, domain))
    assert (logs.min(), logs.max()) == pytest.approx((-30, 30))


def test_source_rows_without_a_label_are_left_out(evaluation_set):
    features, logits, domain, labels = evaluation_set
    labels[[2, 5, 9]] = -100
    kept = torch.tensor([row not in (2, 5, 9) for row in range(40)])
    expected = dev(features[kept], logits[kept], domain[kept], labels[kept])
    assert dev(features, logits, domain, labels) == pytest.approx(expected)


def test_unequal_domain_sizes_do_not_scale_the_ratio():
    features, domain = shifted(shift=0.0)
    kept = np.concatenate([np.arange(2000), np.arange(2000, 2500)])
    assert density_ratios(features[kept], domain[kept]).mean() == pytest.approx(1.0, abs=0.1)


def test_the_control_variate_against_the_formula():
    weights, losses = np.array([0.5, 1.5, 2.0, 0.4]), np.array([1.0, 0.2, 0.1, 0.7])
    eta = -np.cov(weights * losses, weights)[0, 1] / np.var(weights, ddof=1)
    assert controlled_mean(weights, losses) == pytest.approx(np.mean(weights * losses) + eta * weights.mean() - eta)
    assert controlled_mean(np.full(4, 2.0), losses) == pytest.approx(2 * losses.mean()), "without variance no control"


def test_it_estimates_the_target_risk():
    features, domain = (torch.from_numpy(values) for values in shifted())
    labels = torch.from_numpy(np.random.default_rng(1).integers(2, size=4000))
    confidence = features[:, 0].clamp(-3, 3)
    logits = torch.stack([torch.where(labels == 0, confidence, -confidence), torch.zeros(4000)], dim=1)
    losses = torch.nn.functional.cross_entropy(logits, labels, reduction="none")
    source_risk, target_risk = losses[domain == 0].mean().item(), losses[domain == 1].mean().item()
    hidden = torch.where(domain == 0, labels, -100)
    estimate = -dev(features, logits, domain, hidden)
    assert abs(source_risk - target_risk) > 0.15
    assert estimate == pytest.approx(target_risk, abs=0.05)


def test_it_estimates_the_target_risk_of_a_regression():
    """f is wrong by 1 where the first feature is positive, which it is more often on the target."""
    features, domain = (torch.from_numpy(values) for values in shifted())
    labels = torch.randn(4000, 2, generator=torch.Generator().manual_seed(0)).double()
    wrong = (features[:, :1] > 0).double()
    hidden = torch.where(domain.unsqueeze(1) == 0, labels, -100.0)
    source_risk, target_risk = (wrong[domain == value].mean().item() for value in (0, 1))
    estimate = -dev(features, labels + wrong, domain, hidden)
    assert target_risk - source_risk > 0.3
    assert estimate == pytest.approx(target_risk, abs=0.05)
    losses = np.square((wrong + 0 * labels)[domain == 0].numpy()).mean(axis=1)
    ratios = density_ratios(features.numpy(), domain.numpy())
    assert estimate == pytest.approx(controlled_mean(ratios, losses))


def test_missing_labels_or_rows_raise(evaluation_set):
    features, logits, domain, labels = evaluation_set
    with pytest.raises(ValueError, match="`labels` is None"):
        dev(features, logits, domain)
    with pytest.raises(ValueError, match="target rows"):
        dev(features, logits, torch.zeros(40), labels)
