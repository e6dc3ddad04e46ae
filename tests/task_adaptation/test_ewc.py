import pytest
import torch

from hf_transfer.core.objective import BuildContext
from hf_transfer.task_adaptation.ewc import EWC, estimate_fisher, save_fisher
from tests import tiny


def batches(rows=6, size=4):
    tokens = torch.randint(20, (rows, 5), generator=torch.Generator().manual_seed(1))
    return [{"input_ids": part, "labels": torch.zeros(len(part)), "domain": part[:, 0]} for part in tokens.split(size)]


def exact_fisher(model, rows):
    """E_x sum_y p(y|x) (d log p(y|x) / dw)^2, without drawing."""
    fisher = {name: torch.zeros_like(p) for name, p in model.named_parameters()}
    for row in rows:
        log_p = model(input_ids=row.unsqueeze(0)).logits.log_softmax(1)[0]
        for y in range(len(log_p)):
            gradients = torch.autograd.grad(log_p[y], list(model.parameters()), retain_graph=True, allow_unused=True)
            for (name, _), gradient in zip(model.named_parameters(), gradients):
                if gradient is not None:
                    fisher[name] += log_p[y].exp().detach() * gradient**2 / len(rows)
    return fisher


def test_value_and_gradient_against_the_formula(tiny_model, make_view):
    objective = EWC(strength=3.0)
    start = {name: p.detach().clone() for name, p in tiny_model.named_parameters()}
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.prepare(tiny_model, batches())
    with torch.no_grad():
        for p in tiny_model.parameters():
            p.add_(0.1)
    loss = objective(make_view(tiny_model))
    loss.backward()
    expected = 0.0
    for name, p in tiny_model.named_parameters():
        if name.startswith("classifier"):
            continue
        fisher = objective.fisher[name]
        expected += 1.5 * (fisher * (p - start[name]) ** 2).sum().item()
        torch.testing.assert_close(p.grad, (3.0 * fisher * (p - start[name])).detach())
    assert loss.item() == pytest.approx(expected, rel=1e-4) and expected > 0


def test_the_drawn_fisher_comes_near_the_exact_one(tiny_model):
    with torch.no_grad():
        tiny_model.classifier.weight.mul_(20)
    [batch] = batches(rows=2, size=2)
    objective = EWC(samples=40)
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.prepare(tiny_model, [batch] * 20)
    exact = exact_fisher(tiny_model, batch["input_ids"])
    for name in ("bert.pooler.dense.weight", "bert.encoder.layer.0.output.dense.weight"):
        assert (objective.fisher[name].sum() / exact[name].sum()).item() == pytest.approx(1.0, abs=0.35)


@pytest.mark.parametrize("problem_type", ["multi_label_classification", "regression"])
def test_several_labels_and_numbers_are_drawn_as_their_own(problem_type):
    """Of labels log p is a sum: E (d log p)^2 = sum_c p_c (1 - p_c) (d z_c)^2; of numbers sum_c (d z_c)^2."""
    torch.manual_seed(0)
    model = tiny.bert(problem_type=problem_type).eval()
    with torch.no_grad():
        model.classifier.weight.mul_(20)
    tokens = torch.randint(200, (2, 5))
    found = estimate_fisher(model, [{"input_ids": tokens}] * 100, samples=200)
    name = "bert.pooler.dense.weight"
    exact = 0.0
    for row in tokens:
        logits = model(input_ids=row.unsqueeze(0)).logits[0]
        for z in logits:
            (gradient,) = torch.autograd.grad(z, dict(model.named_parameters())[name], retain_graph=True)
            variance = 1.0 if problem_type == "regression" else (z.sigmoid() * (1 - z.sigmoid())).item()
            exact += variance * gradient.square().sum().item() / len(tokens)
    assert found[name].sum().item() == pytest.approx(exact, rel=0.2)


def test_the_source_is_read_instead_of_the_training_set_and_no_more_than_asked(tiny_model):
    source = batches(rows=8, size=4)
    given, whole = EWC(source=source[:1], samples=4), EWC(samples=4)
    for objective, data in ((given, None), (whole, source)):
        objective.build(BuildContext(tiny_model, 8, 3))
        objective.prepare(tiny_model, data)
    for name in given.fisher.names:
        torch.testing.assert_close(given.fisher[name], whole.fisher[name])


def test_the_start_costs_nothing(tiny_model, make_view):
    objective = EWC()
    objective.build(BuildContext(tiny_model, 8, 3))
    objective.prepare(tiny_model, batches())
    assert objective(make_view(tiny_model)).item() == 0


def test_the_information_stored_with_the_model_is_read_back(tiny_model, tmp_path):
    """Under a new head of another size too."""
    save_fisher(tiny_model, batches(), tmp_path, samples=4)
    stored, measured = EWC(fisher=str(tmp_path)), EWC(samples=4)
    measured.build(BuildContext(tiny_model, 8, 3))
    measured.prepare(tiny_model, batches())
    tiny_model.classifier = torch.nn.Linear(8, 7)
    stored.build(BuildContext(tiny_model, 8, 7))
    stored.prepare(tiny_model, None)
    assert stored.fisher.names == measured.fisher.names
    for name in stored.fisher.names:
        assert torch.equal(stored.fisher[name], measured.fisher[name])
    with pytest.raises(ValueError, match=r"has no fisher\.safetensors: write it with `save_fisher`"):
        EWC(fisher=str(tmp_path / "nowhere")).prepare(tiny_model, None)
    with pytest.raises(ValueError, match="give one of them"):
        EWC(source=[], fisher=str(tmp_path))


def test_bad_input_raises(tiny_model):
    with pytest.raises(ValueError, match="`strength`"):
        EWC(strength=-1)
    with pytest.raises(ValueError, match="`samples`"):
        EWC(samples=0)
    objective = EWC()
    objective.build(BuildContext(tiny_model, 8, 3))
    with pytest.raises(ValueError, match="no row"):
        objective.prepare(tiny_model, [])
