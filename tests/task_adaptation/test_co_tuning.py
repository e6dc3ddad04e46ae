from dataclasses import replace

import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.task_adaptation.co_tuning import CoTuning


def batches(labels=(0, 1, 2, 1, 0, 2, -100)):
    tokens = torch.randint(20, (len(labels), 5), generator=torch.Generator().manual_seed(1))
    parts = zip(tokens.split(3), torch.tensor(labels).split(3))
    return [{"input_ids": part, "labels": y, "domain": torch.zeros(len(part))} for part, y in parts]


def pooled(model, tokens):
    return model.bert(input_ids=tokens).pooler_output


def test_the_relation_is_the_mean_source_prediction_of_each_class(tiny_model):
    torch.manual_seed(0)
    head = torch.nn.Linear(8, 5)
    objective = CoTuning(head, temperature=0.5)
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.prepare(tiny_model.train(), batches())
    assert tiny_model.training
    rows = [(token, y.item()) for batch in batches() for token, y in zip(batch["input_ids"], batch["labels"])]
    for label in range(3):
        tokens = torch.stack([token for token, y in rows if y == label])
        expected = (head(pooled(tiny_model, tokens)) / 0.5).softmax(1).mean(0)
        torch.testing.assert_close(objective.relation[label], expected.detach())


def test_value_and_gradient_against_the_formula(tiny_model, make_view):
    torch.manual_seed(0)
    objective = CoTuning(torch.nn.Linear(8, 5))
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.relation.copy_(torch.rand(3, 5).softmax(1))
    view, naive = make_view(), make_view()
    loss = objective(view)
    loss.backward()
    head_gradient = objective.source_head.weight.grad.clone()
    objective.zero_grad()
    expected = 0.0
    for feature, label in zip(naive.features, naive.labels):
        q = objective.source_head(feature).softmax(0)
        expected = expected - sum(p * b.log() for p, b in zip(objective.relation[label], q)) / len(naive.labels)
    expected.backward()
    torch.testing.assert_close(loss, expected)
    torch.testing.assert_close(view.features.grad, naive.features.grad)
    torch.testing.assert_close(head_gradient, objective.source_head.weight.grad)


def test_rows_without_a_label_do_not_count(tiny_model, make_view):
    objective = CoTuning(torch.nn.Linear(8, 5))
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.relation.fill_(0.2)
    view = make_view()
    labels = view.labels.clone()
    labels[2:] = -100
    torch.testing.assert_close(objective(replace(view, labels=labels)), objective(view.rows(torch.arange(6) < 2)))
    assert objective(replace(view, labels=torch.full_like(labels, -100))).item() == 0


def test_bad_input_raises(tiny_model):
    with pytest.raises(ValueError, match="`temperature`"):
        CoTuning(torch.nn.Linear(8, 5), temperature=0)
    with pytest.raises(TypeError):
        CoTuning()
    objective = CoTuning(torch.nn.Linear(8, 5))
    with pytest.raises(ValueError, match="at least 2 classes"):
        objective.build(BuildContext(tiny_model, 8, 1))
    objective.build(BuildContext(tiny_model, 8, 3))
    with pytest.raises(ValueError, match=r"classes \[2\] have no training row"):
        objective.prepare(tiny_model, batches((0, 1, 1)))
