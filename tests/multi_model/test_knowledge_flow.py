import copy

import pytest
import torch
from transformers import AutoModelForImageClassification

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.modeling.surgery import sidecars_of
from hf_transfer.models.flowformer import FlowformerForTimeSeriesClassification
from hf_transfer.multi_model.knowledge_flow import (
    RELEASED,
    Independence,
    Junction,
    convert,
    layers_of,
    nearest,
)
from tests import tiny
from tests.models.flowformer.tiny import tiny_config, tiny_inputs
from tests.multi_model.conftest import end_of


def flowing(zoo, *teachers, make=None, **keywords):
    torch.manual_seed(0)
    model = (make or (lambda: tiny.vit(initializer_range=0.3)))()
    return convert(model, checkpoints=[zoo[name] for name in teachers or ("wide",)], **keywords)


def test_value_and_gradient_against_the_formula():
    torch.manual_seed(0)
    junction = Junction(4, [3, 5])
    torch.testing.assert_close(junction.log_own().exp(), torch.tensor(0.5))
    with torch.no_grad():
        junction.scores.normal_()
    own = torch.randn(2, 6, 4, requires_grad=True)
    others = [torch.randn(2, 6, 3), torch.randn(2, 6, 5)]
    e = junction.scores.exp() / junction.scores.exp().sum()
    expected = e[0] * own
    for share, change, z in zip(e[1:], junction.maps, others):
        expected = expected + share * (torch.einsum("btd,od->bto", z, change.weight) + change.bias)
    value, wanted = junction(own, others), [own, *junction.parameters()]
    torch.testing.assert_close(value, expected)
    measure = torch.randn(value.shape)
    grads = [torch.autograd.grad((one * measure).sum(), wanted) for one in (value, expected)]
    for one, two in zip(*grads):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


def test_a_student_reads_the_teachers_states_at_like_depth(zoo, digits):
    pixels = tiny.batch_of(digits)["pixel_values"]
    plain = tiny.vit(initializer_range=0.3)
    model = flowing(zoo, "wide", "second", per_teacher=1)
    plain.load_state_dict(model.state_dict())
    states = {}
    for name in ("wide", "second"):
        teacher = AutoModelForImageClassification.from_pretrained(zoo[name]).eval()
        states[name] = teacher(pixels, output_hidden_states=True).hidden_states[1:]
    flow = sidecars_of(model)["knowledge_flow"]
    hidden = plain.vit.embeddings(pixels)
    for place, layer in enumerate(layers_of(plain)):
        hidden = layer(hidden)
        hidden = hidden[0] if isinstance(hidden, tuple) else hidden
        hidden = flow.junctions[place](hidden, [states["wide"][place], states["second"][place]])
    expected = plain.classifier(plain.vit.layernorm(hidden)[:, 0])
    torch.testing.assert_close(model.train()(pixels).logits, expected, rtol=1e-4, atol=1e-5)
    flow.progress = RELEASED
    alone = plain(pixels).logits
    torch.testing.assert_close(model(pixels).logits, alone, rtol=1e-4, atol=1e-5)
    assert flow.states == [], "teachers that nothing reads do not run"
    flow.progress = RELEASED / 2
    assert not torch.allclose(model(pixels).logits, alone, atol=1e-3)


def test_layers_of_like_depth():
    teacher = tiny.vit()
    assert len(layers_of(teacher)) == 2
    assert (
        nearest(0, 4, teacher, 1) == [0] and nearest(3, 4, teacher, 1) == [1] and nearest(0, 1, teacher, 2) == [0, 1]
    )


@pytest.mark.parametrize("make", [None, tiny.resnet])
@pytest.mark.parametrize("teacher", ["wide", "resnet"])
def test_any_architectures_and_the_student_is_alone_in_evaluation(zoo, digits, make, teacher, tmp_path):
    pixels = tiny.batch_of(digits)["pixel_values"]
    model = flowing(zoo, teacher, make=make)
    alone = copy.deepcopy(model)
    with torch.no_grad():
        for junction in sidecars_of(alone)["knowledge_flow"].junctions:
            junction.scores[0] = 50.0
    assert not torch.allclose(model.train()(pixels).logits, alone.train()(pixels).logits, atol=1e-3)
    model.eval()
    model.save_pretrained(tmp_path)
    loaded, report = AutoModelForImageClassification.from_pretrained(tmp_path, output_loading_info=True)
    assert not any(report.values())
    torch.testing.assert_close(loaded.eval()(pixels).logits, model(pixels).logits)
    if make is None:
        loaded.load_state_dict(alone.state_dict())
        torch.testing.assert_close(alone.train()(pixels).logits, loaded(pixels).logits)


def test_the_loss_against_the_formula(zoo, digits):
    model = flowing(zoo, "wide").train()
    flow = sidecars_of(model)["knowledge_flow"]
    objective = Independence(dependency=0.3, stability=0.7)
    objective.build(BuildContext(model, 16, 10))
    inputs = {"pixel_values": tiny.batch_of(digits)["pixel_values"]}

    def loss_at(progress):
        logits = model(**inputs).logits
        return logits, objective(View(logits=logits, inputs=inputs, progress=progress, model=model))

    first, loss = loss_at(0.0)
    assert loss.item() == pytest.approx(0, abs=1e-6), "nothing was updated, and teachers may still be read"
    with torch.no_grad():
        for parameter in [*model.parameters(), *flow.junctions.parameters()]:
            parameter.add_(0.02 * torch.randn(parameter.shape))
    second, loss = loss_at(0.5)
    p, q = first.log_softmax(1), second.log_softmax(1)
    own = sum(-junction.scores.log_softmax(0)[0] for junction in flow.junctions)
    expected = 0.3 * 0.5 * own + 0.7 * (p.exp() * (p - q)).sum(1).mean().detach()
    torch.testing.assert_close(loss, expected, rtol=1e-3, atol=1e-5)
    assert (p - q).abs().max() > 1e-2
    again = loss_at(0.5)[1]
    torch.testing.assert_close(again, loss, msg="a second batch of the same step is compared with the same model")
    loss.backward()
    assert all(junction.scores.grad.abs().sum() > 0 for junction in flow.junctions)
    assert model.classifier.weight.grad.abs().sum() > 0 and model.training


def test_batch_norms_compare_the_student_with_itself_alike(zoo, digits):
    model = flowing(zoo, "wide", make=tiny.resnet).train()
    objective = Independence(dependency=0.0)
    objective.build(BuildContext(model, 16, 10))
    inputs = {"pixel_values": tiny.batch_of(digits)["pixel_values"]}
    logits = model(**inputs).logits
    kept = {name: value.clone() for name, value in model.named_buffers() if "running" in name}
    loss = objective(View(logits=logits, inputs=inputs, progress=0.0, model=model))
    assert loss.item() == pytest.approx(0, abs=1e-6), "nothing was updated"
    assert all(torch.equal(value, kept[name]) for name, value in model.named_buffers() if name in kept)
    assert all(module.training for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))
    assert all(module.track_running_stats for module in model.modules() if isinstance(module, torch.nn.BatchNorm2d))


@pytest.mark.parametrize("stability", [0.0, 1.0])
def test_a_student_grows_independent_and_resumes_exactly(zoo, train, tmp_path, stability):

    objectives = {"knowledge_flow": {"dependency": 20.0, "stability": stability}}
    straight = train(
        objectives, flowing(zoo, "wide"), steps=6, learning_rate=0.05, save_strategy="steps", save_steps=3
    )
    ends = end_of(straight)
    flow = sidecars_of(straight.adapted_model)["knowledge_flow"]
    assert all(junction.log_own().exp() > 0.505 for junction in flow.junctions)
    resumed = train(objectives, flowing(zoo, "wide"), steps=6, learning_rate=0.05)
    with torch.no_grad():
        for tensor in resumed.transfer_model.state_dict().values():
            tensor.add_(1)
    resumed.train(resume_from_checkpoint=str(tmp_path / "run" / "checkpoint-3"))
    for name, value in resumed.adapted_model.state_dict().items():
        assert torch.equal(value, ends[name]), name


def test_bad_input_raises(zoo):
    for keywords in ({"dependency": -1.0}, {"stability": -1.0}):
        with pytest.raises(ValueError, match="should be at least 0"):
            Independence(**keywords)
    with pytest.raises(ValueError, match="this model has none: name them by `converters"):
        Independence().build(BuildContext(tiny.vit(), 16, 10))
    with pytest.raises(ValueError, match="`checkpoints` should be a list"):
        convert(tiny.vit(), checkpoints=[])
    with pytest.raises(ValueError, match="`per_teacher` should be positive"):
        flowing(zoo, "wide", per_teacher=0)
    with pytest.raises(ValueError, match="named by `teacher`, cannot be loaded"):
        convert(tiny.vit(), checkpoints=["moved"])
    with pytest.raises(ValueError, match="reads `pixel_values` and the model in training `input_ids`"):
        convert(tiny.bert(), checkpoints=[zoo["wide"]])


@pytest.mark.parametrize("student, teacher", [(tiny.bert, tiny.gpt2), (tiny.llama, tiny.bert)])
def test_texts(student, teacher, tmp_path):
    torch.manual_seed(0)
    teacher().save_pretrained(tmp_path)
    model = convert(student(), checkpoints=[str(tmp_path)]).train()
    model(**tiny.batch_of(tiny.text_rows(), 4)).loss.backward()
    for name, parameter in sidecars_of(model)["knowledge_flow"].junctions.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name


def test_series(tmp_path):
    def model(**sizes):
        return FlowformerForTimeSeriesClassification(tiny_config("time_series", num_labels=3, **sizes))

    torch.manual_seed(0)
    model(hidden_size=8).save_pretrained(tmp_path / "narrow")
    student = convert(model(), checkpoints=[str(tmp_path / "narrow")]).train()
    student(**tiny_inputs(student.config), labels=torch.tensor([0, 1])).loss.backward()
    grads = [one.grad for one in sidecars_of(student)["knowledge_flow"].junctions.parameters()]
    assert all(grad.isfinite().all() for grad in grads) and any(grad.any() for grad in grads)
    model(num_input_channels=7).save_pretrained(tmp_path / "other")
    with pytest.raises(ValueError, match="reads series of 7 channels and the model in training of"):
        convert(model(), checkpoints=[str(tmp_path / "other")])


@pytest.mark.slow
def test_a_student_predicts_alone_after_a_training_at_the_defaults(zoo, train, digits):
    """On the rows that it was trained on it does alone what it did with its teachers."""
    trainer = train({"knowledge_flow": {}}, flowing(zoo, "wide"), steps=60, optim="adamw_torch")
    trainer.train()
    last = [log["loss_task"] for log in trainer.state.log_history if "loss_task" in log][-3:]
    batch = tiny.batch_of(digits, 24)
    loss = torch.nn.functional.cross_entropy(
        trainer.adapted_model.eval()(batch["pixel_values"]).logits, batch["labels"]
    )
    assert loss < 1.5 * sum(last) / 3 < 1.5
