import shutil

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForImageClassification

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.core.task_loss import MULTI_LABEL, REGRESSION, SINGLE_LABEL
from hf_transfer.data.images import image_processor
from hf_transfer.functional.soft_targets import mean_logits
from hf_transfer.multi_model import Ensemble, load_members
from hf_transfer.multi_model.distillation import Distillation
from tests import tiny
from tests.multi_model.conftest import end_of


def built(teachers, model=None, **keywords):
    torch.manual_seed(0)
    model = model or tiny.vit(initializer_range=0.3)
    objective = Distillation(teachers, **keywords)
    objective.build(BuildContext(model, 16, model.config.num_labels))
    return objective, model


def logits_of(folder, pixels):
    return AutoModelForImageClassification.from_pretrained(folder).eval()(pixels).logits.detach()


def test_value_and_gradient_against_the_formula(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    objective, _ = built([zoo["first"], zoo["resnet"]], weights=[3, 1], temperature=3.0)
    logits = torch.randn(8, 10, requires_grad=True)
    other = logits.detach().clone().requires_grad_()
    p = sum(
        share * (logits_of(zoo[name], pixels) / 3).softmax(1) for share, name in ((0.75, "first"), (0.25, "resnet"))
    )
    expected = 9 * sum((p[b] * (p[b].log() - (other[b] / 3).softmax(0).log())).sum() for b in range(8)) / 8
    loss = objective(View(logits=logits, inputs={"pixel_values": pixels}))
    torch.testing.assert_close(loss, expected)
    loss.backward()
    expected.backward()
    torch.testing.assert_close(logits.grad, other.grad)
    assert all(parameter.grad is None for parameter in objective.parameters())


def test_a_model_that_is_its_own_teacher_loses_nothing(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    objective, _ = built(zoo["first"])
    view = View(logits=logits_of(zoo["first"], pixels).requires_grad_(), inputs={"pixel_values": pixels})
    loss = objective(view)
    loss.backward()
    assert loss.item() == pytest.approx(0, abs=1e-6) and view.logits.grad.abs().max() < 1e-6
    assert objective(View(logits=view.logits.flip(1), inputs=view.inputs)).item() > 0.01


def test_a_saved_model_of_several_teaches_as_its_members_do(zoo, digits, tmp_path):
    folders = [zoo["first"], zoo["resnet"]]
    Ensemble.of(load_members(folders)).save_pretrained(tmp_path)
    inputs = {"pixel_values": tiny.batch_of(digits)["pixel_values"]}
    view = View(logits=torch.randn(8, 10), inputs=inputs)
    losses = [built(teacher, temperature=1.0)[0](view) for teacher in (str(tmp_path), folders)]
    torch.testing.assert_close(*losses)


@pytest.mark.parametrize("problem_type", [SINGLE_LABEL, MULTI_LABEL, REGRESSION])
def test_the_mean_of_teachers_is_that_of_their_probabilities(problem_type):
    logits, shares = torch.randn(3, 5, 4).double(), torch.tensor([0.5, 0.3, 0.2])
    squash = {SINGLE_LABEL: lambda z: (z / 2).softmax(-1), MULTI_LABEL: lambda z: (z / 2).sigmoid()}
    squash = squash.get(problem_type, lambda z: z)
    expected = sum(share * squash(one) for share, one in zip(shares.double(), logits))
    torch.testing.assert_close(squash(mean_logits(list(logits), shares.double(), 2.0, problem_type)), expected)


def test_kept_answers_train_as_teachers_that_run(zoo, train, monkeypatch):
    objectives = {"distillation": {"teacher": [zoo["first"], zoo["wide"]]}}
    kept = train(objectives)
    teachers = kept.transfer_model.objectives["distillation"].teachers
    calls = []
    for teacher in teachers:
        teacher.register_forward_hook(lambda *_: calls.append(1))
    ends = end_of(kept)
    assert len(calls) == 2 * 3, "each teacher reads the three batches of the data once, in four steps"
    asked = train({"distillation": {**objectives["distillation"], "cache": False}})
    for name, value in end_of(asked).items():
        torch.testing.assert_close(value, ends[name], rtol=1e-4, atol=1e-6)
    alone = end_of(train({}))
    assert any((alone[name] - value).abs().max() > 1e-4 for name, value in ends.items())


def test_teachers_run_where_rows_are_augmented(zoo, train):
    trainer = train({"distillation": {"teacher": zoo["first"]}}, augmentation={})
    trainer.train()
    assert len(trainer.transfer_model.objectives["distillation"].table.values) == 0


@pytest.mark.parametrize("cache", [True, False])
def test_a_checkpoint_has_no_weights_of_a_teacher_and_resumes_exactly(zoo, train, tmp_path, cache):
    objectives = {"distillation": {"teacher": zoo["first"], "cache": cache}}
    straight = train(objectives, save_strategy="steps", save_steps=2)
    ends = end_of(straight)
    names = set(load_file(tmp_path / "run" / "checkpoint-2" / "objectives.safetensors"))
    assert names == {f"objectives.distillation.{name}" for name in ("table.values", "teachers.0.fingerprint")}
    resumed = train(objectives)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))
    for name, value in resumed.adapted_model.state_dict().items():
        assert torch.equal(value, ends[name]), name


def test_a_teacher_that_was_replaced_is_noticed(zoo, train, tmp_path):
    shutil.copytree(zoo["first"], tmp_path / "teacher")
    objectives = {"distillation": {"teacher": str(tmp_path / "teacher")}}
    train(objectives, save_strategy="steps", save_steps=2).train()
    shutil.rmtree(tmp_path / "teacher")
    shutil.copytree(zoo["second"], tmp_path / "teacher")
    with pytest.raises(ValueError, match="teacher` is another model than the one that this training began with"):
        train(objectives).train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-2"))


def test_a_teacher_that_is_a_module_is_in_the_checkpoint(zoo, train, tmp_path):
    teacher = AutoModelForImageClassification.from_pretrained(zoo["first"])
    trainer = train({"distillation": {"teacher": teacher}}, save_strategy="steps", save_steps=2)
    trainer.train()
    names = load_file(tmp_path / "run" / "checkpoint-2" / "objectives.safetensors")
    assert any("teachers.0.copy.module" in name for name in names)
    trainer.transfer_model.train()
    assert not trainer.transfer_model.objectives["distillation"].teachers[0].model.training


def named(model, names):
    model.config.id2label = dict(enumerate(names))
    model.config.label2id = {name: place for place, name in enumerate(names)}
    return model


def test_a_teacher_with_the_classes_in_another_order_is_put_in_order(tmp_path, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    teacher = named(tiny.vit(num_labels=3, initializer_range=0.3), ["b", "c", "a"])
    teacher.save_pretrained(tmp_path)
    objective, _ = built(str(tmp_path), named(tiny.vit(num_labels=3), ["a", "b", "c"]))
    expected = teacher.eval()(pixels).logits[:, [2, 0, 1]]
    answers = objective.answers({"pixel_values": pixels})
    torch.testing.assert_close(answers.softmax(1), expected.softmax(1))


@pytest.mark.parametrize(
    "keywords, message",
    [
        ({"temperature": 0}, "`temperature` should be positive"),
        ({"weights": [1.0, 2.0]}, "`weights` should be a positive number for each of the 1 teachers"),
        ({"weights": [0.0]}, "`weights` should be a positive"),
        ({"weight": -1}, "`weight` should be at least 0"),
    ],
)
def test_an_invalid_keyword_raises(zoo, keywords, message):
    with pytest.raises(ValueError, match=message):
        Distillation(zoo["first"], **keywords)


def test_an_unusable_teacher_is_refused_before_training(zoo, tmp_path):
    with pytest.raises(ValueError, match="should name at least one model"):
        Distillation([])
    with pytest.raises(ValueError, match="named by `teacher`, cannot be loaded: .* may have been moved"):
        built(str(tmp_path / "moved"))
    with pytest.raises(
        ValueError, match="teacher `ViTForImageClassification` has 3 labels and the model in training 10"
    ):
        built(tiny.vit(num_labels=3))
    with pytest.raises(ValueError, match="reads `input_ids` and the model in training `pixel_values`"):
        built(tiny.bert(num_labels=10))
    tiny.vit().vit.save_pretrained(tmp_path / "backbone")
    with pytest.raises(ValueError, match="without the classification head"):
        built(str(tmp_path / "backbone"))
    other = named(tiny.vit(num_labels=3), ["a", "b", "d"])
    with pytest.raises(ValueError, match="other labels than the model in training: `d` is not among"):
        built(other, named(tiny.vit(num_labels=3), ["a", "b", "c"]))


def test_a_teacher_of_another_image_size_says_so(train, digits):
    teacher = tiny.vit()
    teacher.config.image_size = 28
    teacher = type(teacher)(teacher.config)
    with pytest.raises(ValueError, match="cannot be run on the inputs of the model in training"):
        train({"distillation": {"teacher": teacher}}).train()


def test_a_processor_of_another_kind_is_refused(zoo, train, tmp_path, digits):
    shutil.copytree(zoo["first"], tmp_path / "teacher")
    image_processor(28, num_channels=1).save_pretrained(tmp_path / "teacher")
    trainer = train({})
    with pytest.raises(ValueError, match="an image processor of `size`"):
        type(trainer)(
            tiny.vit(),
            trainer.args,
            objectives={"distillation": {"teacher": str(tmp_path / "teacher")}},
            train_dataset=digits.select(range(24)),
            processing_class=image_processor(14, num_channels=1),
        )
