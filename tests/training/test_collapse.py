import logging

import pytest
import torch
import torch.nn.functional as F

from hf_transfer.core.objective import Objective
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.collapse import channel_spread, rank_me
from hf_transfer.training.collapse import is_collapsed
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig
from tests import tiny

EVALUATED = {"eval_strategy": "steps", "eval_steps": 5}


class Pull(Objective):
    """Only pulls the two views together, which collapses."""

    paper = "none"
    tasks = ANY_PROBLEM
    needs = frozenset({"features", "views"})
    can_collapse = True
    usual_views = "small"

    def forward(self, view):
        return -F.cosine_similarity(view.features, view.views[0].features).mean()


def trainer(folder, digits, objectives, **changes) -> PretrainingTrainer:
    torch.manual_seed(0)
    fields = {"max_steps": 30, "per_device_train_batch_size": 16, "learning_rate": 1e-2, "save_strategy": "no"}
    args = TransferConfig(str(folder), **{**fields, "report_to": [], "disable_tqdm": True, "use_cpu": True, **changes})
    model = tiny.flowformer().flowformer
    return PretrainingTrainer(model, args, objectives=objectives, train_dataset=digits, eval_dataset=digits)


def gauges(trainer):
    return [log for log in trainer.state.log_history if "eval_rank_me" in log]


def test_every_evaluation_logs_the_gauges_of_all_rows(tmp_path, digits):
    """In several batches, and with nothing else changed in what an evaluation gives."""
    made = trainer(tmp_path, digits, {"simclr": {}}, per_device_eval_batch_size=24)
    metrics = made.evaluate()
    with torch.no_grad():
        pixels = tiny.batch_of(digits, 64)["pixel_values"]
        features = made.adapted_model.eval()(pixel_values=pixels).last_hidden_state.mean(dim=1)
    assert metrics["eval_rank_me"] == pytest.approx(rank_me(features).item(), rel=1e-4)
    assert metrics["eval_channel_spread"] == pytest.approx(channel_spread(features).item() * 4, rel=1e-4)
    assert not made.transfer_model.returns_features and not made.transfer_model._forward_hooks


@pytest.mark.parametrize("stop", [False, True])
def test_a_collapse_is_told_and_ends_the_training_on_request(tmp_path, digits, caplog, stop):
    logger = logging.getLogger("hf_transfer.training.collapse")
    logger.addHandler(caplog.handler)
    made = trainer(tmp_path, digits, {"pull": Pull()}, stop_on_collapse=stop, **EVALUATED)
    made.train()
    logger.removeHandler(caplog.handler)
    assert "the features have collapsed, and all rows look nearly alike" in caplog.text
    logs = gauges(made)
    ends = [is_collapsed(log["eval_rank_me"], log["eval_channel_spread"]) for log in logs]
    assert (made.state.global_step < 30) == stop
    assert ends[-1] and (sum(ends) == 1 if stop else len(ends) == 6)


def test_a_healthy_training_goes_on(tmp_path, digits):
    made = trainer(
        tmp_path, digits, {"simclr": {"projection_dim": 8}}, stop_on_collapse=True, max_steps=10, **EVALUATED
    )
    made.train()
    assert made.state.global_step == 10 and len(gauges(made)) == 2


def test_bounds():
    assert is_collapsed(1.1, 0.5) and is_collapsed(20.0, 0.01) and not is_collapsed(2.0, 0.05)


def test_other_objectives_have_no_gauges(tmp_path, digits):
    with pytest.raises(ValueError, match="`stop_on_collapse` is for self-supervised objectives"):
        trainer(tmp_path, digits, {"l2_sp": {}}, stop_on_collapse=True, **EVALUATED)
    made = trainer(tmp_path, digits, {"l2_sp": {}})
    assert "eval_rank_me" not in made.evaluate()


def test_a_stop_without_evaluations_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`stop_on_collapse` looks at evaluations: give an `eval_strategy`"):
        TransferConfig(str(tmp_path), stop_on_collapse=True)
