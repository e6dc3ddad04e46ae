import numpy as np
import pytest
import torch

from hf_transfer.multi_model import merge_regmean, uniform_soup
from tests import tiny
from tests.multi_model.test_task_arithmetic import vits

LAYER = "vit.layers.0.attention.q_proj"


@pytest.fixture
def batches(digits):
    return [{"pixel_values": tiny.batch_of(digits.select(range(i, i + 8)), 8)["pixel_values"]} for i in (0, 8, 16)]


def read_by_head(model, batches) -> np.ndarray:
    """What the classifier's linear layer reads, [N, D]."""
    with torch.no_grad():
        return torch.cat([model.eval().vit(**batch).last_hidden_state[:, 0] for batch in batches]).double().numpy()


def test_value_against_the_formula(batches):
    models, shrink = vits(2), 0.7
    rows = [batches[:2], batches[1:]]
    merged = merge_regmean(models, rows, shrink=shrink).model
    gram, product = 0, 0
    for model, own in zip(models, rows):
        inputs = read_by_head(model, own)
        full = inputs.T @ inputs
        full = np.where(np.eye(len(full)) > 0, full, shrink * full) + 1e-6 * np.diag(full).mean() * np.eye(len(full))
        gram = gram + full
        product = product + full @ model.classifier.weight.detach().double().numpy().T
    expected = np.linalg.solve(gram, product).T
    np.testing.assert_allclose(merged.classifier.weight.detach().numpy(), expected, rtol=1e-4, atol=1e-5)
    soup = uniform_soup(models).model
    torch.testing.assert_close(merged.classifier.bias, soup.classifier.bias)
    torch.testing.assert_close(merged.vit.embeddings.cls_token, soup.vit.embeddings.cls_token)
    assert not torch.allclose(merged.classifier.weight, soup.classifier.weight, atol=1e-3)


def test_a_model_alone_stays_as_it_is(batches):
    (model,) = vits(1)
    merged = merge_regmean([model], [batches], shrink=1.0).model
    for name, value in merged.state_dict().items():
        torch.testing.assert_close(value, model.state_dict()[name], rtol=1e-4, atol=1e-5)


def test_it_is_the_least_squares_solution(batches):
    """Without shrinking, no other head is nearer to the outputs of both models on what theirs read."""
    models = vits(2)
    merged = merge_regmean(models, [batches, batches], shrink=1.0).model.classifier.weight.detach().double().numpy()

    def distance(weight: np.ndarray) -> float:
        return sum(
            np.square(read_by_head(m, batches) @ (weight - m.classifier.weight.detach().double().numpy()).T).sum()
            for m in models
        )

    generator = np.random.default_rng(0)
    assert all(distance(merged) < distance(merged + 0.05 * generator.normal(size=merged.shape)) for _ in range(5))


def test_padding_is_not_measured():
    models = [tiny.bert(), tiny.bert()]
    ids = torch.tensor([[5, 6, 7, 8]])
    longer = torch.tensor([[5, 6, 7, 8, 0, 0]])
    masks = [torch.ones_like(ids), torch.tensor([[1, 1, 1, 1, 0, 0]])]
    batches = [[{"input_ids": i, "attention_mask": m}] for i, m in zip((ids, longer), masks)]
    merged = [merge_regmean(models, [rows, batches[0]]).model.state_dict() for rows in batches]
    for name, value in merged[0].items():
        torch.testing.assert_close(value, merged[1][name], rtol=1e-4, atol=1e-5)


def test_bad_input_raises(zoo, batches):
    model = tiny.vit()
    with pytest.raises(ValueError, match=r"`shrink` should be in \[0, 1\]"):
        merge_regmean([model], [batches], shrink=1.5)
    with pytest.raises(ValueError, match="batches for each of 2 models, got 1"):
        merge_regmean([model, model], [batches])
    with pytest.raises(ValueError, match="there was no batch"):
        merge_regmean([model], [[]])
    with pytest.raises(ValueError, match="in the first model and shape"):
        merge_regmean([zoo["first"], zoo["wide"]], [batches, batches])
