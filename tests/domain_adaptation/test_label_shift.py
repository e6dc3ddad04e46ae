"""Class shares of a target with their error, and what weights make of the losses."""

import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import BuildContext
from hf_transfer.core.supervision import FromLabels
from hf_transfer.domain_adaptation.cdan import CDAN
from hf_transfer.domain_adaptation.dan import DAN
from hf_transfer.domain_adaptation.dann import DANN
from hf_transfer.domain_adaptation.jan import JAN
from hf_transfer.domain_adaptation.label_shift import LabelShift
from hf_transfer.functional.kernels import linear_mmd, quadratic_mmd

NAMES = ["cat", "dog", "cow", "owl"]
TARGET = torch.tensor([0.5, 0.3, 0.15, 0.05])
WEIGHTS = torch.tensor([2.0, 0.5, 0.0, 1.5])


def rows(source_rows=800, target_rows=900, target=TARGET, right=0.8, seed=0):
    """Logits, domain and labels of a classifier that is right so often, and the target's own labels."""
    generator = torch.Generator().manual_seed(seed)
    labels = torch.cat(
        [
            torch.randint(4, (source_rows,), generator=generator),
            torch.multinomial(target, target_rows, True, generator=generator),
        ]
    )
    wrong = torch.randint(4, (len(labels),), generator=generator)
    answers = torch.where(torch.rand(len(labels), generator=generator) < right, labels, wrong)
    domain = (torch.arange(len(labels)) >= source_rows).long()
    return F.one_hot(answers, 4).float(), domain, torch.where(domain == 0, labels, -100), labels[domain == 1]


def test_known_shares_are_found_within_their_error():
    logits, domain, labels, truth = rows()
    shift = LabelShift.of(logits, domain, labels)
    true = torch.bincount(truth, minlength=4) / len(truth)
    assert ((shift.target - true).abs() < 3 * shift.errors).all()
    assert (shift.predicted - true).abs().max() > (shift.target - true).abs().max(), "better than counting answers"
    assert shift.target.sum().item() == pytest.approx(1) == (shift.source * shift.weights).sum().item()
    assert shift.is_visible and shift.distance == pytest.approx(0.3, abs=0.05) and not shift.warnings(NAMES)


def test_the_error_is_the_spread_over_other_rows():
    """That of the bootstrap, beside the spread over draws of both domains."""
    found = [LabelShift.of(*rows(seed=seed)[:3], resamples=2).target for seed in range(60)]
    spread = torch.stack(found).std(dim=0)
    errors = LabelShift.of(*rows()[:3]).errors
    assert (errors / spread).tolist() == pytest.approx([1] * 4, rel=0.4)


def test_the_same_shares_show_no_shift():
    shift = LabelShift.of(*rows(target=torch.full((4,), 0.25))[:3])
    assert not shift.is_visible and "No class differs by more than the error explains." in shift.in_words(NAMES)
    assert shift.effective_rows > 0.95


def test_what_is_said_names_classes_rows_and_errors():
    told = LabelShift.of(*rows()[:3]).in_words(NAMES)
    assert "800 held-out source rows and 900 target rows: cat 5" in told and "(source 2" in told and " ± " in told


def test_a_class_the_target_lacks_and_one_that_is_never_predicted():
    logits, domain, labels, _ = rows(target=torch.tensor([0.5, 0.5, 0.0, 0.0]), right=1.0)
    shift = LabelShift.of(logits, domain, labels)
    assert shift.weights.tolist() == pytest.approx([2, 2, 0, 0], abs=0.2)
    assert (shift.prior > 0).all() and shift.prior.sum().item() == pytest.approx(1)
    never = LabelShift.of(
        torch.where(logits.argmax(1, keepdim=True) == 3, F.one_hot(torch.tensor(2), 4), logits), domain, labels
    )
    assert "never predicts owl on held-out source rows" in never.warnings(NAMES)[0]


def test_doubts_about_the_answers():
    logits, domain, labels, _ = rows()
    shift = LabelShift.of(logits, domain, torch.where(labels == 3, -100, labels))
    assert "Of the classes owl no source row is held out" in shift.warnings(NAMES)[0] and shift.target[3] == 0
    faint = LabelShift.of(*rows(right=0.05)[:3])
    assert "hardly tells some classes apart" in faint.warnings(NAMES)[0]


def test_a_model_that_is_less_sure_on_the_target_than_its_shares_explain():
    logits, domain, labels, _ = rows()
    scaled = logits * torch.where(domain == 0, 4.0, 2.0).unsqueeze(1)
    sure, unsure = (math.exp(scale) / (math.exp(scale) + 3) for scale in (4, 2))
    assert LabelShift.of(scaled, domain, labels).missing_confidence == pytest.approx(sure - unsure, abs=1e-5)
    assert (
        "is 24% less sure than these shares alone explain" in LabelShift.of(scaled, domain, labels).warnings(NAMES)[0]
    )
    alike = LabelShift.of(logits * 4, domain, labels)
    assert alike.missing_confidence == pytest.approx(0, abs=1e-5) and not alike.warnings(NAMES)


@pytest.mark.parametrize("domain", [0, 1])
def test_both_domains_are_needed(domain):
    logits, domains, labels, _ = rows(20, 20)
    kept = domains == domain
    with pytest.raises(ValueError, match=f"there are no {'target' if domain == 0 else 'labelled source'} rows"):
        LabelShift.of(logits[kept], domains[kept], labels[kept])


def test_the_weighted_task_loss(make_view):
    view = replace(make_view(), class_weights=WEIGHTS)
    config = type("Config", (), {"problem_type": "single_label_classification", "num_labels": 4})
    known = [i for i in range(11) if view.domain[i] == 0]
    naive = sum(WEIGHTS[view.labels[i]] * -view.logits[i].log_softmax(0)[view.labels[i]] for i in known) / len(known)
    torch.testing.assert_close(FromLabels()(view, {}, config), naive)


def built(objective):
    objective.build(BuildContext(None, feature_dim=7, num_labels=4))
    return objective.eval()


@pytest.mark.parametrize(
    "objective", [DANN(hidden_size=8), CDAN(hidden_size=8), CDAN(True, hidden_size=8), DAN(), JAN()]
)
def test_even_weights_change_nothing_and_others_do(make_view, objective):
    built(objective)
    plain, even, uneven = (objective(replace(make_view(), class_weights=w)) for w in (None, torch.ones(4), WEIGHTS))
    torch.testing.assert_close(plain, even)
    assert (plain - uneven).abs() > 1e-4 and objective.weighs_source


def test_the_discriminator_counts_a_source_row_as_often_as_its_class_says(make_view):
    objective, view = built(DANN(hidden_size=8)), replace(make_view(), class_weights=WEIGHTS)
    p = objective.discriminator(view.features).sigmoid()
    source = [-WEIGHTS[view.labels[i]] * p[i].log() for i in range(11) if view.domain[i] == 0]
    target = [-(1 - p[i]).log() for i in range(11) if view.domain[i] == 1]
    torch.testing.assert_close(objective(view), (sum(source) / 6 + sum(target) / 5) / 2)


@pytest.mark.parametrize("target_rows", [5, 6])
def test_the_weighted_discrepancy_against_the_naive_sums(target_rows):
    """Of as many rows of both domains, row i is not compared with row i of the other."""
    generator = torch.Generator().manual_seed(0)
    n, m = 6, target_rows
    kernel = torch.rand(n + m, n + m, generator=generator)
    weights = torch.rand(n, generator=generator)
    w = [float(weight / weights.mean()) for weight in weights]
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    within = sum(w[i] * w[j] * kernel[i, j] for i, j in pairs) / len(pairs)
    others = [kernel[n + i, n + j] for i in range(m) for j in range(m) if i != j]
    crossed = [w[i] * kernel[i, n + j] for i in range(n) for j in range(m) if n != m or i != j]
    naive = within + sum(others) / len(others) - 2 * sum(crossed) / len(crossed)
    torch.testing.assert_close(quadratic_mmd(kernel, n, weights), naive)


def test_the_weighted_discrepancy_in_linear_time():
    quadruples = torch.rand(2, 4, generator=torch.Generator().manual_seed(0))
    weights = torch.tensor([1.0, 3.0, 2.0, 2.0, 2.0])  # of mean 2; the last row is in no quadruple
    a, b = quadruples
    naive = (0.75 * a[0] + a[1] - 0.5 * a[2] - 1.5 * a[3] + b[0] + b[1] - b[2] - b[3]) / 2
    torch.testing.assert_close(linear_mmd(quadruples, weights), naive)
