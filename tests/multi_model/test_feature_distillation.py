import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.multi_model.feature_distillation import FeatureDistillation
from tests import tiny
from tests.multi_model.conftest import end_of


def built(teachers, feature_dim=16):
    torch.manual_seed(0)
    objective = FeatureDistillation(teachers)
    objective.build(BuildContext(tiny.vit(), feature_dim, 10))
    return objective


def features_of(folder, pixels):
    """The class token's last state, which the head of a ViT reads."""
    model = AutoModelForImageClassification.from_pretrained(folder).eval()
    return model.vit(pixels).last_hidden_state[:, 0].detach()


def test_value_and_gradient_against_the_formula(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    objective = built([zoo["first"], zoo["wide"]])
    features = torch.randn(8, 16, requires_grad=True)
    weights = [projection.weight.detach().clone().requires_grad_() for projection in objective.projections]
    assert [weight.shape for weight in weights] == [(16, 16), (24, 16)]
    other = features.detach().clone().requires_grad_()
    expected = 0.0
    for weight, name in zip(weights, ("first", "wide")):
        targets = features_of(zoo[name], pixels)
        for row, target in zip(other, targets):
            expected = expected + (weight @ row - target).square().sum() / len(target) / 8 / 2
    loss = objective(View(features=features, inputs={"pixel_values": pixels}))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(features.grad, other.grad)
    for projection, weight in zip(objective.projections, weights):
        torch.testing.assert_close(projection.weight.grad, weight.grad)


def test_features_that_are_the_teachers_lose_nothing(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    objective = built(zoo["wide"], feature_dim=24)
    with torch.no_grad():
        objective.projections[0].weight.copy_(torch.eye(24))
    view = View(features=features_of(zoo["wide"], pixels), inputs={"pixel_values": pixels})
    assert objective(view).item() == pytest.approx(0, abs=1e-9)


def test_it_learns_the_features_of_a_backbone_without_a_head(train, tmp_path):
    tiny.resnet().resnet.save_pretrained(tmp_path / "backbone")
    objectives = {"feature_distillation": {"teacher": str(tmp_path / "backbone")}}
    trainer = train(objectives, steps=30, task_loss_weight=0.0, learning_rate=0.1)
    trainer.train()
    losses = [log["loss_feature_distillation"] for log in trainer.state.log_history if "loss" in log]
    assert losses[-1] < 0.7 * losses[0]


def test_kept_features_train_as_teachers_that_run(zoo, train):
    keywords = {"teacher": [zoo["wide"], zoo["resnet"]]}
    ends = end_of(train({"feature_distillation": keywords}))
    for name, value in end_of(train({"feature_distillation": {**keywords, "cache": False}})).items():
        torch.testing.assert_close(value, ends[name], rtol=1e-4, atol=1e-6)


def test_bad_input_raises(zoo, tmp_path):
    with pytest.raises(ValueError, match="`weight` should be at least 0"):
        FeatureDistillation(zoo["first"], weight=-1)
    with pytest.raises(TypeError, match="temperature"):
        FeatureDistillation(zoo["first"], temperature=2.0)
    with pytest.raises(ValueError, match="named by `teacher`, cannot be loaded"):
        built(str(tmp_path / "moved"))
    with pytest.raises(ValueError, match="reads `input_ids`"):
        built(tiny.bert())
