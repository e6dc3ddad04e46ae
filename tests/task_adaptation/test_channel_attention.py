import pytest
import torch
import torch.nn.functional as F
from sklearn.linear_model import LogisticRegression

from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL, row_losses
from hf_transfer.task_adaptation.channel_attention import (
    RIDGE,
    channel_costs,
    curvature_probe,
    fitted_classifier,
    random_signs,
)
from tests import tiny


@pytest.fixture
def batch(sentences):
    return tiny.batch_of(sentences, 24)


@pytest.fixture
def model():
    """A BERT whose features differ between texts."""
    torch.manual_seed(0)
    return tiny.bert(num_labels=3, initializer_range=0.5).eval()


def test_the_classifier_against_scikit_learn():
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(40, 5, generator=generator, dtype=torch.float64) * 3 + 1
    labels = torch.randint(3, (40,), generator=generator)
    weight, bias = fitted_classifier(features, labels, SINGLE_LABEL, 3)
    scaled = (features - features.mean(0)) / features.std(correction=0)
    reference = LogisticRegression(C=1 / (RIDGE * 40), tol=1e-8, max_iter=1000).fit(scaled, labels)
    expected = torch.from_numpy(reference.predict_proba(scaled))
    torch.testing.assert_close((features @ weight.T + bias).softmax(1), expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize("problem_type", [REGRESSION, MULTI_LABEL])
def test_the_classifier_fits_numbers_and_several_labels(problem_type):
    features = torch.randn(30, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    targets = features[:, :2] * 2
    labels = targets if problem_type == REGRESSION else (targets > 0).long()
    weight, bias = fitted_classifier(features, labels, problem_type, 2)
    outputs = features @ weight.T + bias
    if problem_type == REGRESSION:
        torch.testing.assert_close(outputs, targets, atol=0.2, rtol=0)
    else:
        assert ((outputs > 0) == labels).double().mean() > 0.9


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_probes_have_the_second_derivatives_for_their_covariance(problem_type):
    logits = torch.tensor([1.0, -0.5, 2.0], dtype=torch.float64)
    labels = {SINGLE_LABEL: torch.tensor([1]), MULTI_LABEL: torch.tensor([[0, 1, 1]]), REGRESSION: torch.zeros(1, 3)}
    exact = torch.autograd.functional.hessian(
        lambda z: row_losses(z[None], labels[problem_type], problem_type).sum(), logits
    )
    probes = curvature_probe(logits.expand(40000, 3), problem_type, random_signs((40000, 3), seed=0))
    torch.testing.assert_close(probes.T @ probes / 40000, exact, atol=5e-3, rtol=0)


def test_the_costs_are_those_of_switching_the_channels_off(model, batch):
    """Of the last hidden state, whose channels are switched off before the pooler: the two agree in their order."""
    costs = channel_costs(model, [batch], samples=512)
    labels, inputs = batch["labels"], {name: batch[name] for name in ("input_ids", "attention_mask")}
    with torch.no_grad():
        states = model(**inputs, output_hidden_states=True).hidden_states
        weight, bias = fitted_classifier(
            model.bert(**inputs).pooler_output.double(), labels, "single_label_classification", 3
        )

        def loss_without(channel: int | None) -> torch.Tensor:
            last = states[-1].clone()
            if channel is not None:
                last[:, :, channel] = 0
            return F.cross_entropy(model.bert.pooler(last).double() @ weight.T + bias, labels)

        exact = torch.stack([loss_without(channel) - loss_without(None) for channel in range(16)])
    assert len(costs) == len(states) == 3 and all(cost.shape == (16,) for cost in costs)
    assert torch.corrcoef(torch.stack([costs[-1], exact]))[0, 1] > 0.95


def test_only_so_many_rows_are_read_and_batches_do_not_matter(model, batch):
    halves = [{name: value[part] for name, value in batch.items()} for part in (slice(0, 12), slice(12, 24))]
    together = channel_costs(model, [batch], samples=20)
    apart = channel_costs(model, halves, samples=20)
    for one, other in zip(together, apart):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


def test_the_models_own_head_has_no_say(model, batch):
    before = channel_costs(model, [batch], samples=24)
    torch.nn.init.normal_(model.classifier.weight, std=5.0)
    for one, other in zip(before, channel_costs(model, [batch], samples=24)):
        torch.testing.assert_close(one, other)
    assert all(parameter.grad is None for parameter in model.parameters())


def test_without_a_label_there_is_nothing_to_measure(model, batch):
    with pytest.raises(ValueError, match="no labelled row"):
        channel_costs(model, [{**batch, "labels": torch.full((24,), -100)}], samples=4)
