import pytest
import torch
import torch.nn.functional as F

from hf_transfer.pretraining import info_nce
from tests.pretraining.conftest import rows


def naive(queries, keys, temperature, negatives=None):
    """Row by row and key by key."""
    total = 0.0
    for place, query in enumerate(queries):
        others = keys if negatives is None else [keys[place], *negatives]
        cosines = [query @ key / (query.norm() * key.norm()) / temperature for key in others]
        own = cosines[place if negatives is None else 0]
        total = total - torch.log(own.exp() / sum(one.exp() for one in cosines))
    return total / len(queries)


@pytest.mark.parametrize("queue", [None, 7])
def test_value_and_gradient_against_the_formula(queue):
    negatives = None if queue is None else F.normalize(rows(queue, 5, 3), dim=1)
    got = [rows(4, 5, seed).requires_grad_() for seed in (1, 2)]
    plain = [one.detach().clone().requires_grad_() for one in got]
    loss, expected = info_nce(*got, 0.3, negatives), naive(*plain, 0.3, negatives)
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    for one, other in zip(got, plain):
        torch.testing.assert_close(one.grad, other.grad)


def test_keys_all_alike_cost_the_logarithm_of_their_number():
    same = torch.ones(4, 5)
    assert info_nce(same, same, 0.07).item() == pytest.approx(torch.tensor(4.0).log().item(), rel=1e-5)


def test_a_temperature_may_be_learned():
    temperature = torch.tensor(0.5, requires_grad=True)
    info_nce(rows(4, 5, 0), rows(4, 5, 1), temperature).backward()
    assert temperature.grad.abs() > 0


def test_rows_without_a_partner_are_refused():
    with pytest.raises(ValueError, match=r"should be of one shape \[B, D\], got \[4, 5\] and \[3, 5\]"):
        info_nce(rows(4, 5, 0), rows(3, 5, 0), 0.1)


def test_it_is_the_loss_of_lightly(lightly):
    queries, keys = rows(6, 8, 0), rows(6, 8, 1)  # without a gradient lightly does not change its queue
    theirs = lightly("loss.ntx_ent_loss").NTXentLoss(temperature=0.2, memory_bank_size=(16, 8))
    expected = theirs(queries, keys)
    negatives = theirs.memory_bank.bank
    assert negatives.shape == (16, 8)
    torch.testing.assert_close(info_nce(queries, keys, 0.2, negatives), expected, rtol=1e-6, atol=1e-6)
