import math

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.multi_model import HubPathway
from hf_transfer.multi_model.pathways import Pathways, convert, exploitation_loss, exploration_loss
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from tests import tiny
from tests.multi_model.conftest import end_of
from tests.runs.folders import QUICK


def batch():
    generator = torch.Generator().manual_seed(0)
    active = torch.tensor([[1, 1, 0], [1, 0, 1], [0, 1, 1], [1, 1, 0], [1, 0, 1]])
    weights = torch.rand(5, 3, generator=generator) * active
    weights = (weights / weights.sum(1, keepdim=True)).requires_grad_()
    logits = (torch.randn(5, 3, 4, generator=generator) * active.unsqueeze(2)).requires_grad_()
    return weights, active.float(), logits, torch.tensor([0, 3, -100, 1, 2])


def test_value_and_gradient_against_the_formula():
    weights, active, logits, labels = batch()
    view = View(outputs={"weights": weights, "active": active, "member_logits": logits}, labels=labels)
    loss = Pathways(exploration=0.3, exploitation=0.7)(view)
    p = weights.sum(0) / 5
    expected = 0.3 * (math.log(3) + (p * p.log()).sum())
    for place in range(3):
        rows = [row for row in range(5) if active[row, place] and labels[row] >= 0]
        for row in rows:
            expected = expected - 0.7 * logits[row, place].log_softmax(0)[labels[row]] / len(rows)
    torch.testing.assert_close(loss, expected)
    for one, two in zip(*(torch.autograd.grad(value, (weights, logits)) for value in (loss, expected))):
        torch.testing.assert_close(one, two)


def test_models_that_are_used_alike_cost_nothing_and_one_alone_the_most():
    assert exploration_loss(torch.eye(3)).item() == pytest.approx(0, abs=1e-6)
    alone = torch.tensor([[1.0, 0.0, 0.0]] * 4)
    assert exploration_loss(alone).item() == pytest.approx(math.log(3))


def test_a_model_that_no_row_chose_and_rows_without_labels_add_nothing():
    _, _, logits, labels = batch()
    active = torch.tensor([[1.0, 0.0, 0.0]] * 5)
    expected = torch.nn.functional.cross_entropy(logits[:, 0], labels, ignore_index=-100)
    torch.testing.assert_close(exploitation_loss(logits, active, labels, None), expected)
    assert exploitation_loss(logits, active, torch.full_like(labels, -100), "single_label_classification") == 0


@pytest.mark.parametrize("kind", ["multi_label_classification", "regression"])
def test_several_labels_and_numbers(kind):
    _, active, logits, _ = batch()
    labels = torch.randint(2, (5, 4)).float()
    measure = {"regression": torch.nn.functional.mse_loss}
    measure = measure.get(kind, torch.nn.functional.binary_cross_entropy_with_logits)
    expected = sum(measure(logits[:, i][active[:, i] > 0], labels[active[:, i] > 0]) for i in range(3))
    torch.testing.assert_close(exploitation_loss(logits, active, labels, kind), expected)


def hub(zoo, **keywords):
    torch.manual_seed(0)
    model = AutoModelForImageClassification.from_pretrained(zoo["first"])
    return convert(model, **{"checkpoints": [zoo["resnet"], zoo["wide"]], **keywords})


def test_a_hub_trains_resumes_exactly_and_learns(zoo, train, tmp_path, digits):
    straight = train({"pathways": {}}, hub(zoo), save_strategy="steps", save_steps=2)
    ends = end_of(straight)
    assert "loss_pathways" in next(log for log in straight.state.log_history if "loss" in log)
    resumed = train({"pathways": {}}, hub(zoo))
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for name, value in resumed.adapted_model.state_dict().items():
        assert torch.equal(value, ends[name]), name
    longer = train({"pathways": {}}, hub(zoo), steps=40, optim="adamw_torch", output_dir=str(tmp_path / "longer"))
    longer.train()
    losses = [log["loss"] for log in longer.state.log_history if "loss" in log]
    assert sum(losses[-5:]) < 0.8 * sum(losses[:5])


def test_checkpoints_get_heads_for_the_models_labels(zoo, tmp_path):
    tiny.vit(num_labels=3).save_pretrained(tmp_path / "three")
    tiny.resnet().resnet.save_pretrained(tmp_path / "backbone")
    made = hub(zoo, checkpoints=[str(tmp_path / "three"), str(tmp_path / "backbone")])
    assert isinstance(made, HubPathway) and {member.config.num_labels for member in made.hub.members} == {10}


def test_from_the_command_line_to_the_evaluation_of_the_folder(here):
    argv = ["--model", "vit", "--dataset", "digits", "--test_dataset", "more_digits", "--output_dir", "run", *QUICK]
    argv += ["--converters", "{hub_pathway: {checkpoints: [flow], top: 1}}", "--objectives", "{pathways: {}}"]
    result = run_adaptation(parse_arguments(argv))
    assert isinstance(AutoModelForImageClassification.from_pretrained("run/model"), HubPathway)
    assert run_evaluation("run/model", "more_digits")["loss"] == pytest.approx(result["loss"], abs=1e-5)


@pytest.mark.parametrize("keywords", [{"exploration": -1.0}, {"exploitation": -0.1}])
def test_an_invalid_keyword_raises(keywords):
    with pytest.raises(ValueError, match="should be at least 0"):
        Pathways(**keywords)


def test_bad_input_raises(zoo, here):
    with pytest.raises(ValueError, match="this is a ViTForImageClassification: name the hub by `converters"):
        Pathways().build(BuildContext(tiny.vit(), 16, 10))
    with pytest.raises(ValueError, match="`checkpoints` should be a list"):
        hub(zoo, checkpoints=[])
    with pytest.raises(ValueError, match="`top` should be from 1 to 3"):
        hub(zoo, top=4)
    with pytest.raises(ValueError, match="`moved`, named by `checkpoints`, cannot be loaded"):
        hub(zoo, checkpoints=["moved"])
    with pytest.raises(ValueError, match="`bert`, named by `checkpoints`, cannot be loaded"):
        hub(zoo, checkpoints=["bert"])
    with pytest.raises(ValueError, match="made of classifiers of images or of texts"):
        convert(tiny.vit().vit, checkpoints=["vit"])
