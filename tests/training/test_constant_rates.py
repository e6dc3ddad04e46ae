import pytest
import torch
from torch.optim.lr_scheduler import LambdaLR, ReduceLROnPlateau
from transformers import TrainerCallback

from hf_transfer.pretraining.simsiam import SimSiam
from hf_transfer.training.constant_rates import MARK, hold_constant_groups, split_constant_groups
from hf_transfer.training.family_trainers import PretrainingTrainer
from hf_transfer.training.trainer import TransferConfig
from tests import tiny


def trainer(folder, digits, objective=None, **changes) -> PretrainingTrainer:
    torch.manual_seed(0)
    fields = {"max_steps": 4, "per_device_train_batch_size": 8, "learning_rate": 0.1, "save_strategy": "no"}
    args = TransferConfig(str(folder), **{**fields, "report_to": [], "disable_tqdm": True, "use_cpu": True, **changes})
    objective = objective or SimSiam(projection_dim=6, hidden_size=3)
    model = tiny.flowformer().flowformer
    return PretrainingTrainer(model, args, objectives={"simsiam": objective}, train_dataset=digits)


@pytest.mark.parametrize("changes", [{}, {"warmup_steps": 2}, {"head_learning_rate_multiplier": 2.0}])
def test_the_predictor_keeps_its_rate_while_the_rest_follows_the_schedule(tmp_path, digits, changes):
    made = trainer(tmp_path, digits, lr_scheduler_type="cosine", weight_decay=0.1, **changes)
    rates = []

    class Watch(TrainerCallback):
        def on_pre_optimizer_step(self, args, state, control, **kwargs):
            groups = made.optimizer.param_groups
            rates.append({bool(group.get(MARK)): group["lr"] for group in groups})

    made.add_callback(Watch())
    made.train()
    assert [one[True] for one in rates] == [0.1 * changes.get("head_learning_rate_multiplier", 1)] * 4
    assert len({one[False] for one in rates}) > 2 and rates[-1][False] < 0.1
    inside = {id(p) for g in made.optimizer.param_groups if g.get(MARK) for p in g["params"]}
    assert inside == {id(p) for p in made.transfer_model.objectives["simsiam"].predictor.parameters()}
    decays = {g["weight_decay"] for g in made.optimizer.param_groups if g.get(MARK)}
    assert decays == {0.0, 0.1}, "with and without decay, as before"


def test_on_request_it_follows_too(tmp_path, digits):
    made = trainer(tmp_path, digits, SimSiam(projection_dim=6, hidden_size=3, constant_rate=False))
    assert not any(group.get(MARK) for group in made.create_optimizer().param_groups)


def test_a_scheduler_without_factors_is_refused():
    kept = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([kept])
    split_constant_groups(optimizer, [kept])
    with pytest.raises(ValueError, match="a ReduceLROnPlateau cannot: choose another `lr_scheduler_type`"):
        hold_constant_groups(ReduceLROnPlateau(optimizer))


def test_groups_are_split_and_held():
    first, second = (torch.nn.Parameter(torch.zeros(1)) for _ in range(2))
    third = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([{"params": [first, second], "lr": 0.5}, {"params": [third]}])
    split_constant_groups(optimizer, [second])
    assert [len(group["params"]) for group in optimizer.param_groups] == [1, 1, 1]
    scheduler = LambdaLR(optimizer, lambda step: 0.0)
    hold_constant_groups(scheduler)
    assert [group["lr"] for group in optimizer.param_groups] == [0, 0, 0.5]
    hold_constant_groups(LambdaLR(torch.optim.SGD([first]), lambda step: 1.0))
    hold_constant_groups(ReduceLROnPlateau(torch.optim.SGD([first])))
