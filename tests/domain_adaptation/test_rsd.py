import numpy as np
import pytest
import torch

from hf_transfer.domain_adaptation.rsd import RSD, principal_basis, representation_subspace_distance


def pair(n=3, m=3, width=9):
    generator = torch.Generator().manual_seed(0)
    return (torch.randn(rows, width, generator=generator, dtype=torch.float64) for rows in (n, m))


def naive_distance(source, target, mismatch):
    source_basis = np.linalg.svd(source.numpy().T, full_matrices=False)[0]
    target_basis = np.linalg.svd(target.numpy().T, full_matrices=False)[0]
    p, cosines, q = np.linalg.svd(source_basis.T @ target_basis)
    return np.sqrt(1 - cosines**2).sum() + mismatch * np.linalg.norm(np.abs(p) - np.abs(q.T))


def test_value_against_numpy_and_gradient_against_differences():
    source, target = pair()
    value = representation_subspace_distance(source, target, 0.3)
    assert value.item() == pytest.approx(naive_distance(source, target, 0.3))
    assert torch.autograd.gradcheck(
        lambda s, t: representation_subspace_distance(s, t, 0.3), (source.requires_grad_(), target.requires_grad_())
    )


def test_it_ignores_the_scale_of_the_features():
    source, target = pair()
    before = representation_subspace_distance(source, target)
    torch.testing.assert_close(representation_subspace_distance(7 * source, 0.1 * target), before)


def test_orthogonal_subspaces_are_a_right_angle_apart_in_each_direction():
    eye = torch.eye(6, dtype=torch.float64) * torch.arange(1.0, 7.0, dtype=torch.float64).unsqueeze(1)
    assert representation_subspace_distance(eye[:3], eye[3:], 0.0).item() == pytest.approx(3.0)


def test_dependent_rows_have_a_finite_gradient():
    source, target = pair()
    source = torch.cat([source, source[:2], torch.zeros(1, 9)]).requires_grad_()
    assert principal_basis(source).shape == (9, 3)
    representation_subspace_distance(source, target).backward()
    assert source.grad.isfinite().all()


def test_a_row_that_is_the_mean_of_two_others_in_float32():
    source, target = (rows.float() for rows in pair(4, 4, width=32))
    source[3] = (source[0] + source[1]) / 2
    source.requires_grad_()
    assert principal_basis(source.double(), torch.float32).shape == (32, 3)
    representation_subspace_distance(source, target).backward()
    assert source.grad.abs().max() < 100


def test_features_of_low_rank_are_told_from_too_many_rows():
    generator = torch.Generator().manual_seed(0)
    narrow = torch.randn(4, 32, generator=generator)
    source, target = (torch.randn(6, 4, generator=generator) @ narrow for _ in range(2))
    with pytest.raises(ValueError, match="the 6 source rows span 4 directions of 32 and the 6 target rows 4"):
        representation_subspace_distance(source, target)


def test_the_objective_compares_the_domains(make_view):
    view = make_view(2, 3)
    expected = representation_subspace_distance(view.features[view.domain == 0], view.features[view.domain == 1])
    torch.testing.assert_close(RSD()(view), expected)
    assert RSD()(make_view(2, 0)).item() == 0


def test_bad_input_raises():
    with pytest.raises(ValueError, match="`bases_mismatch`"):
        RSD(bases_mismatch=-1)
    source, target = pair(6, 6)
    with pytest.raises(ValueError, match="share 3 directions exactly.*at most as many rows"):
        representation_subspace_distance(source, target)
