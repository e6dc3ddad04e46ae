import pytest
import torch
from torch import nn

from hf_transfer.core.objective import BuildContext
from hf_transfer.evaluation.meta_learning import evaluate_adaptation
from hf_transfer.few_shot.maml import MAML
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny


@pytest.fixture(scope="module")
def rows():
    return tiny.digit_rows(0, 200)


@pytest.fixture
def settings(tmp_path):
    return TransferConfig(output_dir=str(tmp_path), report_to=[], use_cpu=True, disable_tqdm=True, save_strategy="no")


def maml(model: nn.Module, **keywords) -> MAML:
    made = MAML(ways=2, shots=5, queries=5, inner_learning_rate=0.05, first_order=True, **keywords)
    made.build(BuildContext(model, None, 10))
    return made


@pytest.mark.slow
def test_steps_on_the_support_make_the_queries_better_and_the_weights_stay(settings, rows):
    torch.manual_seed(0)
    model = tiny.vit()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate_adaptation(TransferTrainer(model, settings), rows, maml(model), steps=(0, 20), episodes=10)
    assert found.keys() == {"inductive"}
    (start, _), (end, interval) = found["inductive"][0], found["inductive"][20]
    assert start == 0.5 and end > 0.6 and 0 < interval < 0.3
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    again = evaluate_adaptation(TransferTrainer(model, settings), rows, maml(model), steps=(0, 20), episodes=10)
    assert again == found


def test_batch_norm_is_measured_with_both_statistics(settings, rows):
    torch.manual_seed(0)
    model = tiny.resnet()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    found = evaluate_adaptation(TransferTrainer(model, settings), rows, maml(model), steps=(1,), episodes=4)
    assert found["inductive"] != found["transductive"]
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(module.training for module in model.modules())


def test_one_episode_has_no_interval(settings, rows):
    with pytest.raises(ValueError, match="`episodes` should be at least 2"):
        evaluate_adaptation(TransferTrainer(tiny.vit(), settings), rows, maml(tiny.vit()), episodes=1)
