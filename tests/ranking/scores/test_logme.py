import math

import pytest
import torch
from scipy.optimize import brentq
from scipy.stats import multivariate_normal
from sklearn.datasets import load_diabetes, load_iris, load_wine

from hf_transfer.ranking import LogME, TransferabilityScore, logme
from hf_transfer.ranking.moments import second_moments, symmetric
from hf_transfer.ranking.score import GOLDEN_RATIO, jackknife_standard_error, target_columns
from hf_transfer.ranking.scores.logme import bracket, maximum_evidence, shard_influence


def random_features(rows, size, seed=0, decay=1.0):
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(rows, size, generator=generator, dtype=torch.float64) * torch.logspace(0, -decay, size).double()


def random_targets(features, seed=1, noise=1.0):
    generator = torch.Generator().manual_seed(seed)
    weights = torch.randn(features.shape[1], 2, generator=generator, dtype=torch.float64)
    return features @ weights + noise * torch.randn(len(features), 2, generator=generator, dtype=torch.float64)


def scored(features, labels, **options):
    score = LogME(**options)
    score.update(features, labels)
    return score


def evidence_by_definition(features, labels, evidence):
    """Mean over columns of log N(y; 0, I / beta + F F^T / alpha) / n."""
    targets, rows = target_columns(labels)[:, evidence.columns], len(features)
    logs = []
    for column, (alpha, beta) in enumerate(zip(evidence.alpha.tolist(), evidence.beta.tolist())):
        covariance = torch.eye(rows).double() / beta + features @ features.T / alpha
        logs.append(multivariate_normal.logpdf(targets[:, column].numpy(), None, covariance.numpy()) / rows)
    return sum(logs) / len(logs)


def evidence_by_iteration(features, target, steps=100_000):
    """The published fixed point, from t = 1 until it no longer moves; one column."""
    rows, size = features.shape
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    squares, coordinates = singular**2, (left.T @ target) ** 2
    outside = (target @ target - coordinates.sum()).clamp(min=0) if size < rows else 0.0
    t = 1.0
    for _ in range(steps):
        gamma = (squares / (t + squares)).sum()
        mean_square = (squares * coordinates / (t + squares) ** 2).sum()
        residual = (coordinates / (1 + squares / t) ** 2).sum() + outside
        alpha, beta = gamma / mean_square, (rows - gamma) / residual
        before, t = t, float(alpha / beta)
        if abs(t - before) < 1e-13 * t:
            break
    volume = (alpha + beta * squares).log().sum() + (size - len(squares)) * alpha.log()
    evidence = size / 2 * alpha.log() + rows / 2 * beta.log() - volume / 2
    evidence = evidence - beta / 2 * residual - alpha / 2 * mean_square - rows / 2 * math.log(2 * math.pi)
    return float(evidence / rows)


def log_evidence_at(evidence, statistics):
    """Mean over columns of the log evidence of weighted rows at the alpha, beta and means of `evidence`."""
    gram, logs = symmetric(statistics["gram"]), []
    for column, (alpha, beta) in enumerate(zip(evidence.alpha, evidence.beta)):
        mean = evidence.posterior_means[column]
        misfit = statistics["energy"][column] - 2 * mean @ statistics["cross"][:, column] + mean @ gram @ mean
        precision = alpha * torch.eye(len(gram)).double() + beta * gram
        log = len(gram) / 2 * alpha.log() + statistics["rows"] / 2 * (beta / (2 * math.pi)).log()
        logs.append(log - precision.logdet() / 2 - beta / 2 * misfit - alpha / 2 * mean @ mean)
    return float(torch.stack(logs).mean())


def wide():
    return random_features(20, 60)


def rank_deficient():
    features = random_features(60, 20)
    features[:, 5], features[:, 6], features[:, 7] = features[:, 1], features[:, 2] + features[:, 3], 0
    return features


CASES = {
    "tall": random_features(80, 12),
    "square": random_features(30, 30),
    "wide": wide(),
    "rank-deficient": rank_deficient(),
    "wide with duplicates": torch.cat([wide(), wide()], dim=1),
    "ill-conditioned": random_features(90, 20, decay=4.0),
}


@pytest.mark.parametrize("case", CASES)
def test_equals_the_gaussian_evidence(case):
    features = CASES[case]
    targets = random_targets(features)
    score = scored(features, targets)
    expected = evidence_by_definition(features, targets, score.evidence())
    assert score.compute().value == pytest.approx(expected, abs=1e-8)


@pytest.mark.parametrize("case", ["tall", "wide", "square", "rank-deficient"])
def test_no_other_alpha_and_beta_explain_more(case):
    features = CASES[case]
    targets = random_targets(features)
    evidence = scored(features, targets).evidence()
    best = evidence_by_definition(features, targets, evidence)
    for field in ("alpha", "beta"):
        for factor in (0.8, 1.25):
            changed = type(evidence)(**{**vars(evidence), field: getattr(evidence, field) * factor})
            assert evidence_by_definition(features, targets, changed) < best


@pytest.mark.parametrize(("rows", "size", "seed"), [(50, 20, 0), (50, 20, 1), (30, 30, 2), (20, 50, 4), (15, 40, 7)])
def test_equals_the_published_iteration(rows, size, seed):
    features = random_features(rows, size, seed, decay=2.0)
    target = random_targets(features, seed)[:, 0]
    assert logme(features, target) == pytest.approx(evidence_by_iteration(features, target), abs=1e-9)


def test_classes_with_one_row_and_constant_targets():
    features = CASES["tall"]
    labels = torch.zeros(80, dtype=torch.long)
    labels[3] = 1
    score = scored(features, labels)
    assert score.compute().value == pytest.approx(evidence_by_definition(features, labels, score.evidence()), abs=1e-8)
    constant = torch.full((80,), 2.5, dtype=torch.float64)
    score = scored(features, constant)
    expected = evidence_by_definition(features, constant, score.evidence())
    assert score.compute().value == pytest.approx(expected, abs=1e-8)


def test_references():
    data = load_iris()
    assert logme(torch.tensor(data.data), torch.tensor(data.target)) == pytest.approx(-0.16006024, abs=1e-6)
    data = load_wine()
    standard = (data.data - data.data.mean(axis=0)) / data.data.std(axis=0)
    assert logme(torch.tensor(standard), torch.tensor(data.target)) == pytest.approx(-0.53770700, abs=1e-6)
    data = load_diabetes()
    assert logme(torch.tensor(data.data), torch.tensor(data.target)) == pytest.approx(-6.52356396, abs=1e-6)


def test_zero_columns_and_scale_change_nothing():
    features = CASES["tall"]
    targets = random_targets(features)
    value = logme(features, targets)
    assert logme(torch.cat([features, torch.zeros(80, 30)], dim=1), targets) == pytest.approx(value, abs=1e-10)
    for scale in (1e-6, 1e6):
        assert logme(features * scale, targets) == pytest.approx(value, abs=1e-9)


def test_low_precision_input_is_summed_in_float64():
    features = random_features(3000, 8).bfloat16()
    targets = random_targets(features.double())
    streamed = LogME()
    for batch in torch.arange(3000).split(100):
        streamed.update(features[batch], targets[batch])
    assert streamed.compute().value == pytest.approx(logme(features.double(), targets), abs=1e-12)


def test_streams_classes_that_appear_late():
    features = random_features(120, 6)
    labels = torch.arange(120) // 30
    streamed, other = LogME(), LogME()
    streamed.update(features[:60], labels[:60])
    other.update(features[60:], labels[60:], torch.arange(60, 120))
    streamed.merge(other)
    assert streamed.compute().value == pytest.approx(logme(features, labels), abs=1e-12)


def test_absent_classes_are_left_out():
    features = random_features(40, 6)
    labels = torch.arange(40) % 2
    spread = labels * 5
    assert logme(features, spread) == pytest.approx(logme(features, labels), abs=1e-12)


def test_multi_label_is_the_mean_over_columns():
    features = random_features(50, 6)
    labels = (random_targets(features) > 0).long()
    columns = [logme(features, labels[:, column].double()) for column in range(2)]
    assert logme(features, labels) == pytest.approx(sum(columns) / 2, abs=1e-12)


def test_posterior_means_solve_the_ridge_equations():
    features = CASES["rank-deficient"]
    targets = random_targets(features)
    evidence = scored(features, targets).evidence()
    for column in range(2):
        ridge = float(evidence.alpha[column] / evidence.beta[column])
        matrix = features.T @ features + ridge * torch.eye(20)
        expected = torch.linalg.solve(matrix, features.T @ targets[:, column])
        torch.testing.assert_close(evidence.posterior_means[column], expected, atol=1e-9, rtol=1e-7)


def test_infinitesimal_jackknife_follows_the_real_one():
    features = random_features(1000, 20)
    score = scored(features, random_targets(features, noise=0.3).argmax(dim=1))
    quick = score.compute().replicates
    full = TransferabilityScore.leave_one_out(score, score.shards, score.total())
    assert quick == pytest.approx(full, abs=3e-3)
    assert jackknife_standard_error(quick) == pytest.approx(jackknife_standard_error(full), rel=0.1)


def test_the_jackknife_is_a_derivative():
    features = random_features(300, 130)
    score = scored(features, random_targets(features, noise=3.0))
    evidence, shard = score.evidence(), score.shards[0]
    curvature = evidence.curvature()

    def weighted(weight):
        total = score.total()
        some = {name: total[name] + weight * shard[name] for name in total}
        # The number of rows counts as it is in the score: the whole of them, which is no integer here.
        return log_evidence_at(evidence, some) / float(some["rows"])

    slope = (weighted(1e-4) - weighted(-1e-4)) / 2e-4
    assert shard_influence(evidence, curvature, shard) == pytest.approx(slope, rel=1e-5)


def test_a_class_that_most_shards_lack():
    """Only the first of ten shards has rows of the last class; a shard's moments are as wide as its own classes."""
    features, rows = random_features(400, 12), torch.arange(400)
    is_first = (rows.double() * GOLDEN_RATIO).frac() < 0.1
    labels = torch.where(is_first & (rows % 2 == 0), 2, rows // 10 % 2)
    score = scored(features, labels)
    total = score.total()
    whole = second_moments(features, labels)
    assert [shard["cross"].shape[1] for shard in score.shards] == [3] + [2] * 9
    assert all(torch.allclose(total[name], whole[name].reshape(total[name].shape)) for name in ("cross", "energy"))
    evidence, curvature = score.evidence(), score.evidence().curvature()
    slopes = []
    for shard in score.shards:
        wide = {
            name: torch.nn.functional.pad(shard[name], (0, 3 - shard[name].shape[-1])) for name in ("cross", "energy")
        }
        ends = []
        for weight in (1e-4, -1e-4):
            some = {name: total[name] + weight * {**shard, **wide}[name] for name in total}
            ends.append(log_evidence_at(evidence, some) / float(some["rows"]))
        slopes.append((ends[0] - ends[1]) / 2e-4)
        assert shard_influence(evidence, curvature, shard) == pytest.approx(slopes[-1], abs=1e-8)
    leaving_one_out = [evidence.score - 10 / 9 * slope for slope in slopes]
    assert score.compute().replicates == pytest.approx(leaving_one_out, abs=1e-8)


def test_standard_error_is_that_of_new_samples():
    def sample(seed):
        features = random_features(400, 5, seed)
        labels = (features[:, 0] + random_features(400, 1, seed + 10_000)[:, 0] > 0).long()
        return scored(features, labels).compute()

    results = [sample(seed) for seed in range(40)]
    spread = torch.tensor([result.value for result in results]).std().item()
    claimed = sum(result.standard_error for result in results) / len(results)
    assert claimed == pytest.approx(spread, rel=0.3)


def test_a_perfect_fit_is_finite_and_says_so():
    features = torch.cat([random_features(50, 3), torch.ones(50, 1).double()], dim=1)
    target = features @ torch.tensor([1.0, -2.0, 0.5, 3.0]).double()
    result = scored(features, target).compute()
    assert math.isfinite(result.value) and not result.diagnostics["is_bounded"]
    assert result.value > logme(features, target + 1e-3 * random_features(50, 1, 9)[:, 0])


def test_noise_features_explain_nothing():
    target = random_features(200, 1, 5)[:, 0]
    gaussian = -0.5 * (math.log(2 * math.pi * target.square().mean().item()) + 1)
    assert logme(torch.zeros(200, 4), target) == pytest.approx(gaussian, abs=1e-12)
    assert logme(random_features(200, 4, 11), target) == pytest.approx(gaussian, abs=0.02)


@pytest.mark.parametrize("scale", [1e-9, 1.0, 1e9])
def test_the_rank_at_any_scale(scale):
    features = CASES["rank-deficient"]
    targets = random_targets(features)
    result = scored(features * scale, targets).compute()
    # of 20 columns one repeats another, one is a sum of two and one is zero
    assert result.diagnostics["rank"] == 17
    assert result.value == pytest.approx(logme(features, targets), abs=1e-8)


@pytest.mark.parametrize("scale", [1e-7, 1e7])
def test_the_scale_of_the_targets_moves_the_evidence_by_its_logarithm(scale):
    features = CASES["tall"]
    targets = random_targets(features)
    result = scored(features, targets * scale).compute()
    assert result.value == pytest.approx(logme(features, targets) - math.log(scale), abs=1e-8)
    assert result.diagnostics["is_bounded"]


@pytest.mark.parametrize("scale", [1e-6, 1.0, 1e6])
def test_one_exact_fit_of_two_is_not_bounded(scale):
    features = CASES["tall"]
    targets = random_targets(features)
    targets[:, 1] = features @ torch.ones(12, dtype=torch.float64)
    assert not scored(features, targets * scale).compute().diagnostics["is_bounded"]


def test_as_many_dimensions_as_rows_are_bounded():
    assert scored(CASES["wide"], random_targets(CASES["wide"])).compute().diagnostics["is_bounded"]


def published_ratio(features, target):
    """alpha / beta where the published update changes nothing, by a bracketing root finder."""
    rows = len(features)
    left, singular, _ = torch.linalg.svd(features, full_matrices=False)
    squares, coordinates = singular**2, (left.T @ target) ** 2

    def change(log_t):
        t = math.exp(log_t)
        gamma = (squares / (t + squares)).sum()
        alpha = gamma / (squares * coordinates / (t + squares) ** 2).sum()
        residual = target @ target - coordinates.sum() + (coordinates * t**2 / (t + squares) ** 2).sum()
        return math.log(float(alpha * residual / (rows - gamma))) - log_t

    return math.exp(brentq(change, -12, 12, xtol=1e-13))


def test_a_few_newton_steps_find_alpha_and_beta(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.evidence.NEWTON_STEPS", 6)
    features = random_features(80, 12)
    targets = torch.cat([random_targets(features, 1, noise) for noise in (0.1, 1.0, 4.0)], dim=1)
    evidence = scored(features, targets).evidence()
    expected = [published_ratio(features, target) for target in targets.T]
    assert (evidence.alpha / evidence.beta).tolist() == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("log_eigenvalues", "low", "high"),
    [((0.0,), -25, 25), ((0.0, 30.0), -25, 55), ((30.0,), -1, 55), ((-30.0,), -55, 1)],
)
def test_where_the_evidence_has_no_maximum_the_last_cell_is_taken(log_eigenvalues, low, high):
    eigenvalues = torch.tensor(log_eigenvalues).double().exp()
    cell = (high - low) / 256
    # nothing of the target lies in the features, and all of it lies along the first of them
    left, right = bracket(eigenvalues, torch.zeros(len(eigenvalues), 1).double(), torch.ones(1).double(), 50)
    assert right.item() - left.item() == pytest.approx(cell) and high <= right.item() + 1e-6 <= high + 1.01 * cell
    along = torch.zeros(len(eigenvalues), 1).double()
    along[0] = 1
    left, right = bracket(eigenvalues, along, torch.zeros(1).double(), 50)
    assert right.item() - left.item() == pytest.approx(cell) and low - 1.01 * cell <= left.item() - 1e-6 <= low


def test_nothing_to_explain_is_refused():
    statistics = second_moments(random_features(10, 3), torch.zeros(10))
    with pytest.raises(ValueError, match="nothing to explain"):
        maximum_evidence(statistics["gram"], statistics["cross"], statistics["energy"], 10)
