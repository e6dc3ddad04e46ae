import json

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader
from transformers import AutoModelForImageClassification, default_data_collator

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.multi_model.b_tuning import BTuning, shares_of
from hf_transfer.ranking import Ranking, logme, rank_models
from hf_transfer.ranking.row import RankingRow
from tests import tiny
from tests.multi_model.conftest import end_of


def naive_mean(features: np.ndarray, target: np.ndarray) -> tuple[np.ndarray, float]:
    """Posterior mean of the weights and evidence by MacKay's fixed-point iteration."""
    rows, width = features.shape
    alpha = beta = 1.0
    for _ in range(5000):
        precision = alpha * np.eye(width) + beta * features.T @ features
        mean = beta * np.linalg.solve(precision, features.T @ target)
        gamma = width - alpha * np.trace(np.linalg.inv(precision))
        before = alpha / beta
        alpha, beta = gamma / (mean @ mean), (rows - gamma) / np.square(features @ mean - target).sum()
        if abs(np.log(alpha / beta / before)) < 1e-9:
            break
    evidence = width * np.log(alpha) / 2 + rows * np.log(beta / 2 / np.pi) / 2 - np.linalg.slogdet(precision)[1] / 2
    return mean, evidence - beta * np.square(features @ mean - target).sum() / 2 - alpha * mean @ mean / 2


def features_of(source, pixels) -> torch.Tensor:
    model = source if isinstance(source, torch.nn.Module) else AutoModelForImageClassification.from_pretrained(source)
    model = model.eval()
    with torch.no_grad():
        if hasattr(model, "vit"):
            return model.vit(pixels).last_hidden_state[:, 0]
        return model.resnet(pixels).pooler_output.flatten(1)


def targets_of(labels: torch.Tensor, columns: int) -> torch.Tensor:
    return torch.eye(columns)[labels] if labels.ndim == 1 and columns > 1 else labels.reshape(len(labels), -1).float()


@pytest.fixture
def student():
    torch.manual_seed(7)
    return tiny.vit(initializer_range=0.3)


def prepared(objective, model, rows, labels=None):
    """The objective after its pass over the rows, in batches of 16, and the rows as one batch."""
    batch = tiny.batch_of(rows, len(rows))
    labels = batch["labels"] if labels is None else labels
    items = [{"pixel_values": p, "labels": label} for p, label in zip(batch["pixel_values"], labels)]
    objective.build(BuildContext(model, 16, model.config.num_labels))
    objective.prepare(model, DataLoader(items, 16, collate_fn=default_data_collator))
    return batch["pixel_values"], labels


@pytest.mark.parametrize("kind", ["classes", "several labels", "numbers"])
def test_value_and_gradient_against_the_formula(zoo, digits, kind):
    digit = torch.as_tensor(digits["labels"][:])
    labels, columns = {
        "classes": (digit, 10),
        "several labels": (torch.stack([digit % 2, digit // 5, (digit == 0).long()], dim=1).float(), 3),
        "numbers": (digit.float(), 1),
    }[kind]
    torch.manual_seed(7)
    types = {"classes": None, "several labels": "multi_label_classification", "numbers": "regression"}
    model = tiny.vit(num_labels=columns, initializer_range=0.3, problem_type=types[kind])
    objective = BTuning(teacher=[zoo["first"], zoo["wide"], zoo["resnet"]], temperature=0.7)
    pixels, _ = prepared(objective, model, digits, labels)
    targets, expected, scores = targets_of(labels, columns).double().numpy(), [], []
    for source in (model, zoo["first"], zoo["wide"], zoo["resnet"]):
        features = features_of(source, pixels).double().numpy()
        columnwise = [naive_mean(features, target) for target in targets.T]
        expected.append((features, np.stack([mean for mean, _ in columnwise])))
        scores.append(np.mean([evidence for _, evidence in columnwise]) / len(features))
    z = (np.array(scores[1:]) - np.mean(scores[1:])) / np.std(scores[1:]) / 0.7
    shares = np.exp(z) / np.exp(z).sum()
    taught = sum(share * f @ m.T for share, (f, m) in zip(shares, expected[1:]))
    torch.testing.assert_close(objective.shares.double(), torch.from_numpy(shares), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(objective.means.double(), torch.from_numpy(expected[0][1]), rtol=1e-2, atol=1e-3)
    moved = (features_of(model, pixels) + torch.randn(len(pixels), 16)).requires_grad_()
    other = moved.detach().clone().requires_grad_()
    wanted = (other.double() @ torch.from_numpy(expected[0][1]).T - torch.from_numpy(taught)).square().mean()
    loss = objective(View(features=moved, inputs={"pixel_values": pixels}))
    torch.testing.assert_close(loss.double(), wanted, rtol=1e-2, atol=1e-3)
    loss.backward()
    wanted.backward()
    torch.testing.assert_close(moved.grad, other.grad, rtol=3e-2, atol=1e-4)


def test_a_model_that_is_its_own_teacher_loses_nothing_at_the_start(digits, student):
    objective = BTuning(teacher=student)
    pixels, _ = prepared(objective, student, digits)
    assert objective.shares.tolist() == [1.0]
    features = features_of(student, pixels)
    assert objective(View(features=features, inputs={"pixel_values": pixels})).item() == pytest.approx(0, abs=1e-8)
    assert objective(View(features=features * 2, inputs={"pixel_values": pixels})).item() > 1e-3


def test_the_shares_follow_the_scores_that_logme_gives(zoo, digits, student):
    objective = BTuning(teacher=[zoo["first"], zoo["resnet"]])
    pixels, labels = prepared(objective, student, digits)
    scores = [logme(features_of(zoo[name], pixels), labels) for name in ("first", "resnet")]
    torch.testing.assert_close(objective.shares.double(), shares_of(scores, 1.0), rtol=1e-5, atol=1e-6)


def test_the_weight_is_the_number_of_classes_or_that_of_labels_of_size_one(zoo, digits, student):
    objective = BTuning(teacher=zoo["first"])
    prepared(objective, student, digits)
    assert objective.weight == pytest.approx(10) and BTuning(teacher=zoo["first"], weight=3.0).weight == 3.0
    torch.manual_seed(7)
    numbers = tiny.vit(num_labels=1, problem_type="regression")
    prepared(
        objective := BTuning(teacher=zoo["first"]), numbers, digits, 20 * torch.as_tensor(digits["labels"][:]).float()
    )
    assert objective.weight == pytest.approx(
        1 / (20 * torch.as_tensor(digits["labels"][:]).float()).square().mean().item()
    )
    again = BTuning(teacher=zoo["first"])
    again.build(BuildContext(numbers, 16, 1))
    again.load_state_dict(objective.state_dict())
    assert again.weight == objective.weight, "a training that goes on does not measure again"


def test_shares_depend_on_differences_in_units_of_their_spread():
    close = shares_of([0.9501, 0.9480, 0.9478], 1.0)
    assert close[0] > 0.7, "the released softmax(s / .1) gives .338"
    torch.testing.assert_close(close, shares_of([95.01, 94.80, 94.78], 1.0))
    assert shares_of([1.0, 1.0], 1.0).tolist() == [0.5, 0.5] and shares_of([3.0], 1.0).tolist() == [1.0]
    assert shares_of([1.0, 2.0], 100.0)[0] == pytest.approx(0.495, abs=1e-3)


def test_unlabelled_rows_are_taught_and_not_measured_on(zoo, digits, student):
    labels = torch.as_tensor(digits["labels"][:]).clone()
    known = torch.arange(len(labels)) < 40
    some, all_known = BTuning(teacher=zoo["first"]), BTuning(teacher=zoo["first"])
    prepared(some, student, digits, labels.where(known, torch.tensor(-100)))
    prepared(all_known, student, digits.select(range(40)))
    torch.testing.assert_close(some.teacher_means, all_known.teacher_means)
    with pytest.raises(ValueError, match="no training row has a label"):
        prepared(BTuning(teacher=zoo["first"]), student, digits, torch.full_like(labels, -100))


def test_kept_answers_train_as_teachers_that_run(zoo, train):
    keywords = {"teacher": [zoo["wide"], zoo["resnet"]], "weight": 1.0}
    kept = train({"b_tuning": keywords})
    ends = end_of(kept)
    assert kept.transfer_model.objectives["b_tuning"].table.values.shape == (24, 10)
    for name, value in end_of(train({"b_tuning": {**keywords, "cache": False}})).items():
        torch.testing.assert_close(value, ends[name], rtol=1e-3, atol=1e-5)


def test_a_step_with_kept_answers_runs_no_teacher(zoo, train):
    trainer = train({"b_tuning": {"teacher": [zoo["wide"], zoo["resnet"]]}}, steps=6)
    calls = []
    for teacher in trainer.transfer_model.objectives["b_tuning"].teachers:
        teacher.register_forward_hook(lambda *_: calls.append(1))
    trainer.train()
    assert len(calls) == 2 * 3


def built(objective):
    objective.build(BuildContext(tiny.vit(), 16, 10))
    return objective


@pytest.fixture
def ranking(zoo, tmp_path) -> str:
    names = ["resnet", "wide", "first", "second"]
    rows = [RankingRow(zoo[name], score=score) for score, name in enumerate(names)]
    rows += [RankingRow("random", score=9.0, is_baseline=True), RankingRow("broken", reason="no weights")]
    body = json.loads(Ranking(tuple(rows[:0])).to_json())
    ordered = sorted(rows[:5], key=lambda row: -row.score) + rows[5:]
    body["rows"] = [{"model": row.model, "score": row.score, "is_baseline": row.is_baseline} for row in ordered]
    (tmp_path / "ranking").mkdir()
    (tmp_path / "ranking" / "ranking.json").write_text(json.dumps(body))
    return str(tmp_path / "ranking")


def test_the_best_models_of_a_saved_ranking_teach(zoo, ranking):
    assert built(BTuning(ranking)).member_folders == (zoo["second"], zoo["first"], zoo["wide"])
    assert built(BTuning(ranking, top=1)).member_folders == (zoo["second"],)


def test_a_ranking_that_was_saved_by_the_ranking_itself_is_read(zoo, tmp_path, digits):
    ranking = rank_models([zoo["first"], zoo["resnet"]], digits, layers="last")
    ranking.save(tmp_path / "saved")
    objective = built(BTuning(str(tmp_path / "saved"), top=2))
    assert objective.member_folders == tuple(row.model for row in ranking.rows)


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({}, "give either `ranking`"),
        ({"teacher": "x", "ranking": "y"}, "give either `ranking`"),
        ({"teacher": "x", "top": 2}, "`top` chooses from a `ranking`"),
        ({"teacher": "x", "temperature": 0.0}, "`temperature` should be positive"),
        ({"teacher": "x", "weight": -1.0}, "`weight` should be at least 0"),
    ],
)
def test_an_invalid_keyword_raises(keywords, message):
    with pytest.raises(ValueError, match=message):
        BTuning(**keywords)


def test_a_ranking_that_cannot_serve_says_why(ranking, tmp_path):
    with pytest.raises(ValueError, match="`top` should be from 1 to 4, the scored models of"):
        built(BTuning(ranking, top=5))
    with pytest.raises(ValueError, match="holds no ranking.json: `hf-transfer rank"):
        built(BTuning(str(tmp_path / "moved")))
    (tmp_path / "ranking.json").write_text("{}")
    with pytest.raises(ValueError, match="is no saved ranking: KeyError 'rows'"):
        built(BTuning(str(tmp_path)))
