import pytest
import torch

import hf_transfer.validators.dd as module
from hf_transfer.validators.dd import dd, held_out_disparity

pytestmark = pytest.mark.usefixtures("fitted")


def clouds(shift, count=80, seed=0):
    """Source and target clouds in the plane, the target shifted along the second axis; the number is of the first."""
    generator = torch.Generator().manual_seed(seed)
    features = torch.randn(2 * count, 2, generator=generator)
    domain = torch.arange(2).repeat_interleave(count)
    features[domain == 1, 1] += shift
    return features, features[:, :1].sigmoid(), domain


def test_like_domains_have_no_disparity_and_distant_ones_much():
    near, far = held_out_disparity(*clouds(0.0)), held_out_disparity(*clouds(6.0))
    assert abs(near) < 0.1
    assert 0.45 < far < 1, "f' can go to the farther end of the range on nearly all of a distant target"


def test_the_score_is_minus_source_error_minus_disparity_in_shares_of_the_range(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, answers, domain = clouds(3.0)
    labels = (answers + 0.1 * torch.randn(answers.shape, generator=torch.Generator().manual_seed(1)))[:, 0]
    known = labels[domain == 0].tolist()
    low, high = min(known), max(known)
    shares = [((a - low) / (high - low)) for a in answers[:, 0].tolist()]
    source_error = sum(abs(a - (y - low) / (high - low)) for a, y in zip(shares, known)) / len(known)
    expected = -(source_error + held_out_disparity(features, torch.tensor(shares).unsqueeze(1), domain))
    found = dd(features, answers, domain, labels)
    assert found == pytest.approx(expected, abs=1e-4)
    hidden = torch.where(domain == 0, labels, -100.0)
    assert dd(features, answers, domain, hidden) == found, "no label of the target is read"
    with torch.no_grad():
        assert dd(features, 40 * answers - 7, domain, 40 * labels - 7) == pytest.approx(found, abs=1e-3)


def test_each_number_of_a_label_has_its_own_range(monkeypatch):
    monkeypatch.setattr("hf_transfer.functional.hypotheses.STEPS", 2)
    features, answers, domain = clouds(1.0)
    answers = torch.cat([answers, features[:, 1:]], dim=1)
    labels = answers + 0.1 * torch.randn(answers.shape, generator=torch.Generator().manual_seed(1))
    scale, offset = torch.tensor([1.0, 50.0]), torch.tensor([0.0, -7.0])
    found = dd(features, answers, domain, labels)
    assert dd(features, answers * scale + offset, domain, labels * scale + offset) == pytest.approx(found, abs=1e-4)
    low, high = labels[domain == 0].amin(dim=0), labels[domain == 0].amax(dim=0)
    shares = [(values - low) / (high - low) for values in (answers, labels)]
    assert dd(features, shares[0], domain, shares[1]) == pytest.approx(found, abs=1e-4)
    with pytest.raises(ValueError, match="all labels are the same"):
        dd(features, answers, domain, torch.stack([labels[:, 0], torch.ones(160)], dim=1))


def test_the_disparity_against_the_formula(monkeypatch):
    """What is ascended and what is counted, for outputs of f' and answers of four rows with two numbers."""
    asked = {}
    monkeypatch.setattr(module, "held_out_supremum", lambda *values: asked.update(values=values))
    held_out_disparity(torch.zeros(4, 1), torch.zeros(4, 2), torch.zeros(4))
    surrogate, gap, seed = asked["values"][3:]
    generator = torch.Generator().manual_seed(0)
    adversarial, answers = torch.randn(4, 2, generator=generator), torch.rand(4, 2, generator=generator)
    expected = [
        sum(abs(p - a) for p, a in zip(*row)) / 2 for row in zip(adversarial.sigmoid().tolist(), answers.tolist())
    ]
    assert gap(adversarial, answers).tolist() == pytest.approx(expected)
    found = surrogate(adversarial, answers, torch.tensor([1, 0, 1, 0])).item()
    assert found == pytest.approx((expected[0] + expected[2] - expected[1] - expected[3]) / 2)
    assert seed == 0


def test_what_it_cannot_score(evaluation_set):
    features, logits, domain, labels = evaluation_set
    with pytest.raises(ValueError, match="the labels are classes: `mdd` is theirs"):
        dd(features, logits[:, :1], domain, labels)
    with pytest.raises(ValueError, match="all labels are the same"):
        dd(features, logits[:, :1], domain, torch.ones(40))
    with pytest.raises(ValueError, match="`labels` is None"):
        dd(features, logits[:, :1], domain)
    with pytest.raises(ValueError, match="target rows"):
        dd(features, logits[:, :1], torch.zeros(40), labels.float())
