from dataclasses import replace

import numpy as np
import pytest
import torch

from hf_transfer.domain_generalization.domain_coral import DomainCORAL, moment_distance


def test_value_against_numpy(sources):
    view = sources()
    groups = [view.features[view.domain == e].detach().numpy().astype(float) for e in range(3)]
    distances = []
    for a, b in ((0, 1), (0, 2), (1, 2)):
        means = ((groups[a].mean(0) - groups[b].mean(0)) ** 2).sum() / 7
        covariances = ((np.cov(groups[a].T) - np.cov(groups[b].T)) ** 2).sum() / 7**2
        distances.append(means + covariances)
    assert DomainCORAL()(view).item() == pytest.approx(sum(distances) / 3, rel=1e-5)


def test_gradient_against_differences(sines):
    first, second = (sines[k].clone().requires_grad_() for k in ("f_s", "f_t"))
    assert torch.autograd.gradcheck(moment_distance, (first, second))


def test_the_same_rows_everywhere_give_zero_and_a_shift_is_seen(sources):
    view = sources()
    same = view.features[:3].repeat(2, 1)
    domain = torch.tensor([0, 0, 0, 1, 1, 1])
    assert DomainCORAL()(replace(view, features=same, domain=domain)).item() == 0
    shifted = same + 2.0 * domain[:, None]
    assert DomainCORAL()(replace(view, features=shifted, domain=domain)).item() == pytest.approx(4.0, rel=1e-5)


def test_an_environment_of_one_row_is_left_out(sources):
    view = sources()
    lonely = replace(view, domain=torch.tensor([0, 1, 2, 0, 1, 1, 0, 1, 1, 1, 1]))
    two = lonely.rows(lonely.domain != 2)
    torch.testing.assert_close(DomainCORAL()(lonely), DomainCORAL()(two))
    assert DomainCORAL()(two.rows(two.domain == 0)).item() == 0


def test_no_domain_and_an_invalid_keyword_raise(sources):
    with pytest.raises(ValueError, match="`domain` column that numbers the sources"):
        DomainCORAL()(replace(sources(), domain=None))
    with pytest.raises(TypeError):
        DomainCORAL(k=1)
