import torch
import torch.nn.functional as F

from hf_transfer.core.objective import View
from hf_transfer.few_shot.matching import Matching

LABELS = torch.tensor([7, 7, 3, 3, 7, 3, 3])


def episode():
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(0)).requires_grad_()


def test_value_and_gradient_against_the_formula():
    features, naive = episode(), episode()
    loss = Matching(ways=2, shots=2, queries=2)(View(features, features, LABELS))
    expected = 0.0
    for row in (4, 5, 6):
        attention = torch.stack([F.cosine_similarity(naive[row], naive[i], dim=0) for i in range(4)]).softmax(0)
        expected = expected - torch.log(sum(attention[i] for i in range(4) if LABELS[i] == LABELS[row])) / 3
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(features.grad, naive.grad)


def test_probabilities_add_up_and_lengths_do_not_count():
    support, queries = torch.randn(3, 2, 4), torch.randn(5, 4)
    log_p = Matching.log_probabilities(support, queries)
    torch.testing.assert_close(log_p.exp().sum(dim=1), torch.ones(5))
    torch.testing.assert_close(Matching.log_probabilities(3 * support, 0.1 * queries), log_p)
