import pytest
import torch

from hf_transfer.domain_adaptation.jan import JAN, joint_mmd

SCALES = (0.125, 0.25, 0.5, 1.0, 2.0)


def naive_joint_mmd(source, target):
    n = len(source[0])

    def distances(part):
        rows = torch.cat([source[part], target[part]])
        return torch.stack([torch.stack([((a - b) ** 2).sum() for b in rows]) for a in rows])

    features, predictions = distances(0), distances(1)
    k = sum(torch.exp(-features / (2 * scale * features.detach().mean())) for scale in SCALES)
    k = k * torch.exp(-predictions / (2 * 0.92**2))
    pairs = [(i, j) for i in range(n) for j in range(n) if i != j]
    return sum(k[i, j] + k[n + i, n + j] - k[i, n + j] - k[n + i, j] for i, j in pairs) / len(pairs)


def leaves(sines):
    tensors = [sines["f_s"], sines["y"][:4].softmax(1), sines["f_t"], sines["yt"][:4].softmax(1)]
    return [tensor.clone().requires_grad_() for tensor in tensors]


def test_value_and_gradient_against_the_formula(sines):
    ours, naive = leaves(sines), leaves(sines)
    loss = joint_mmd(ours[:2], ours[2:])
    expected = naive_joint_mmd(naive[:2], naive[2:])
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    for got, want in zip(ours, naive):
        torch.testing.assert_close(got.grad, want.grad)


@pytest.mark.parametrize("linear", [False, True])
def test_the_same_rows_on_both_sides_give_zero(sines, linear):
    rows = (sines["f_s"], sines["y"][:4].softmax(1))
    assert joint_mmd(rows, rows, linear=linear).item() == pytest.approx(0.0, abs=1e-12)


def test_it_sees_a_label_shift_that_the_features_hide():
    features = torch.randn(8, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    one, other = torch.tensor([[1.0, 0.0]]).double().repeat(8, 1), torch.tensor([[0.0, 1.0]]).double().repeat(8, 1)
    assert joint_mmd((features, one), (features, other)).item() > 0.1


def test_the_objective_reads_softmax_predictions(make_view):
    view = make_view(5, 5)
    source, target = view.domain == 0, view.domain == 1
    p = view.logits.softmax(1)
    expected = joint_mmd((view.features[source], p[source]), (view.features[target], p[target]))
    torch.testing.assert_close(JAN()(view), expected)
    assert JAN()(make_view(1, 5)).item() == 0


@pytest.mark.parametrize("keywords", [{"scales": ()}, {"scales": (-1.0,)}, {"prediction_width": 0}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match=next(iter(keywords))):
        JAN(**keywords)
