import math

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import AlternatingObjective, Phase
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.family_trainers import DomainAdaptationTrainer, TaskAdaptationTrainer, join_domains
from hf_transfer.training.steps import only_trains
from hf_transfer.training.trainer import TransferTrainer
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.training.test_trainer import assert_same, config, state_of


class Tug(AlternatingObjective):
    """A scale pulls one way with all rows, the backbone the other way, twice; it notes what moved."""

    paper = "none"

    def build(self, context):
        self.scale = torch.nn.Parameter(torch.ones(context.feature_dim))

    def phases(self, progress):
        pull = Phase("pull", lambda model: [self.scale], self.pull)
        push = Phase("push", lambda model: model.vit.parameters(), self.push, steps=2)
        task = Phase("task", lambda model: model.classifier.parameters(), joins_task=True)
        return (pull, push, task) if progress < 0.5 else (task, pull)

    def pull(self, view):
        return (view.features * self.scale).square().mean()

    def push(self, view):
        return -self.pull(view)


@pytest.fixture(scope="module")
def rows(digits):
    return tiny.two_domains(digits)


def make(folder, rows, objectives=None, **changes) -> AlternatingTrainer:
    torch.manual_seed(0)
    objectives = {"tug": Tug()} if objectives is None else objectives
    return AlternatingTrainer(tiny.vit(), config(folder, **changes), train_dataset=rows, objectives=objectives)


def naive_step(model: TransferModel, batch: dict, learning_rate: float) -> None:
    """One batch by hand: pull, push, push, task, each a plain step of gradient descent on its own parameters."""
    net, scale = model.model, model.objectives["tug"].scale

    def features():
        return net.vit(batch["pixel_values"]).last_hidden_state[:, 0]

    def descend(parameters, loss):
        parameters = list(parameters)
        gradients = torch.autograd.grad(loss, parameters, allow_unused=True)
        with torch.no_grad():
            for parameter, gradient in zip(parameters, gradients):
                if gradient is not None:
                    parameter -= learning_rate * gradient

    descend([scale], (features() * scale).square().mean())
    for _ in range(2):
        descend(net.vit.parameters(), -(features() * scale).square().mean())
    known = batch["labels"] >= 0
    descend(net.classifier.parameters(), F.cross_entropy(net.classifier(features())[known], batch["labels"][known]))


def test_a_step_is_the_phases_by_hand(tmp_path, rows):
    plain = {"optim": "sgd", "learning_rate": 0.1, "lr_scheduler_type": "constant", "max_grad_norm": 0.0}
    trainer = make(tmp_path, rows, max_steps=1, **plain)
    by_hand = make(tmp_path, rows).transfer_model
    batch = next(iter(trainer.get_train_dataloader()))
    trainer.train()
    naive_step(by_hand, {name: torch.as_tensor(value) for name, value in batch.items()}, 0.1)
    assert_same(state_of(trainer), by_hand.state_dict(), rtol=1e-5, atol=1e-6)


def test_a_phase_moves_its_own_parameters_only(tmp_path, rows):
    """Also under an optimizer with momentum and weight decay; every step starts without gradients."""
    trainer = make(tmp_path, rows, max_steps=1, weight_decay=0.1)
    seen, is_clean, take_step = [], [], trainer.steps._take_step

    def watched(model):
        before = state_of(trainer)
        take_step(model)
        after = state_of(trainer)
        seen.append({name for name, value in after.items() if not torch.equal(value, before[name])})
        is_clean.append(all(parameter.grad is None for parameter in model.parameters()))

    trainer.steps._take_step = watched
    start = state_of(trainer)
    trainer.train()
    assert seen[0] == {"objectives.tug.scale"}
    assert seen[1] == seen[2] and all(name.startswith("model.vit.") for name in seen[1]) and len(seen[1]) > 10
    assert is_clean == [True, True, True]
    end = state_of(trainer)
    assert not torch.equal(end["model.classifier.weight"], start["model.classifier.weight"])
    assert all(parameter.requires_grad for parameter in trainer.transfer_model.parameters())


def test_resuming_equals_a_straight_run(tmp_path, rows):
    """To the bit, from a checkpoint before and one after the change of phases, with AdamW and dropout."""
    straight = make(tmp_path, rows, save_strategy="steps", save_steps=1)
    straight.train()
    for stop in (1, 3):
        resumed = make(tmp_path, rows)
        with torch.no_grad():
            for parameter in resumed.transfer_model.parameters():
                parameter.add_(1.0)
        resumed.train(resume_from_checkpoint=str(tmp_path / f"checkpoint-{stop}"))
        assert_same(state_of(resumed), state_of(straight))


def test_the_log_names_phases_and_the_other_objectives_join_the_task(tmp_path, rows):
    trainer = make(tmp_path, rows, objectives={"tug": Tug(), "mcc": {"weight": 0.5}}, max_steps=1)
    trainer.train()
    log = trainer.state.log_history[0]
    terms = {name: value for name, value in log.items() if name.startswith("loss_")}
    assert terms.keys() == {"loss_task", "loss_mcc", "loss_tug_task", "loss_tug_pull", "loss_tug_push"}
    expected = log["loss_task"] + 0.5 * log["loss_mcc"] + log["loss_tug_pull"] + log["loss_tug_push"]
    assert log["loss"] == pytest.approx(expected, abs=1e-4)
    assert math.isfinite(trainer.evaluate()["eval_information_maximization"])


def test_what_cannot_alternate_is_refused_before_training(tmp_path, rows):
    with pytest.raises(ValueError, match="none of the objectives alternates"):
        make(tmp_path, rows, objectives={"mcc": {}})
    with pytest.raises(ValueError, match="the steps of one objective can alternate, got \\['one', 'two'\\]"):
        make(tmp_path, rows, objectives={"one": Tug(), "two": Tug()})
    with pytest.raises(ValueError, match="`gradient_accumulation_steps` should be 1 .* got 2"):
        make(tmp_path, rows, gradient_accumulation_steps=2)
    with pytest.raises(ValueError, match="`ddp_find_unused_parameters` should not be False"):
        make(tmp_path, rows, ddp_find_unused_parameters=False)


@pytest.mark.parametrize("family", [TransferTrainer, TaskAdaptationTrainer, DomainAdaptationTrainer])
def test_every_family_goes_through_the_phases(tmp_path, rows, family):
    rows = join_domains(rows, None)  # without the labels of the target
    known = make(tmp_path / "known", rows)
    known.train()
    torch.manual_seed(0)
    other = family(tiny.vit(), config(tmp_path / "other"), train_dataset=rows, objectives={"tug": Tug()})
    other.train()
    assert_same(state_of(other), state_of(known))


def test_a_phase_without_trainable_parameters_is_an_error():
    model = TransferModel(tiny.vit(), {"tug": Tug()})
    model.model.vit.requires_grad_(False)
    phase = Phase("push", lambda net: net.vit.parameters())
    with pytest.raises(ValueError, match="phase `push` has nothing to train"), only_trains(model, phase):
        pass


def test_outside_the_trainer_there_is_no_phase():
    with pytest.raises(RuntimeError, match="Tug has no phase: a TransferTrainer sets it"):
        Tug()(None)
