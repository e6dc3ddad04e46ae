import pytest
import torch
from transformers import default_data_collator

from hf_transfer.core.objective import BuildContext, View
from hf_transfer.few_shot.episodic import split_episode
from hf_transfer.few_shot.maml import MAML
from hf_transfer.few_shot.matching import Matching
from hf_transfer.few_shot.prototypical import Prototypical
from hf_transfer.few_shot.reptile import Reptile
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny

LABELS = torch.tensor([7, 7, 3, 3, 7, 3, 3])


def episode(seed=0):
    return torch.randn(7, 5, generator=torch.Generator().manual_seed(seed)).requires_grad_()


def test_value_and_gradient_against_the_formula():
    features, naive = episode(), episode()
    loss = Prototypical(ways=2, shots=2, queries=2)(View(features, features, LABELS))
    prototypes = {7: (naive[0] + naive[1]) / 2, 3: (naive[2] + naive[3]) / 2}
    expected = 0.0
    for row in (4, 5, 6):
        weights = {c: torch.exp(-((naive[row] - p) ** 2).sum()) for c, p in prototypes.items()}
        expected = expected - torch.log(weights[LABELS[row].item()] / sum(weights.values())) / 3
    torch.testing.assert_close(loss, expected)
    loss.backward(), expected.backward()
    torch.testing.assert_close(features.grad, naive.grad)


@pytest.mark.parametrize("cls", [Prototypical, Matching, MAML, Reptile])
def test_an_episode_of_one_class_is_refused(cls):
    with pytest.raises(ValueError, match="`ways` should be at least 2, got 1"):
        cls(ways=1).build(BuildContext(tiny.vit(), 16, 10))


def test_a_batch_that_is_no_episode_is_refused():
    for labels in (LABELS.flip(0), torch.tensor([7, 7, 3, 3, 7, 3, 9]), LABELS[:4]):
        with pytest.raises(ValueError, match="the batch is no episode of 2 classes with 2 support rows"):
            split_episode(torch.zeros(len(labels), 5), labels, ways=2, shots=2)
    with pytest.raises(ValueError, match="`ways` should be positive"):
        Prototypical(ways=0)


def test_the_trainer_draws_episodes_and_the_loss_falls(tmp_path, digits):
    torch.manual_seed(0)
    args = TransferConfig(
        output_dir=str(tmp_path),
        objectives={"prototypical": {"ways": 3, "shots": 2, "queries": 2}},
        task_loss_weight=0.0,
        max_steps=40,
        per_device_train_batch_size=12,
        learning_rate=3e-3,
        logging_steps=5,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    model = tiny.vit()
    head = model.classifier.weight.clone()
    trainer = TransferTrainer(model, args, train_dataset=digits, data_collator=default_data_collator)
    trainer.train()
    losses = [log["loss_prototypical"] for log in trainer.state.log_history if "loss" in log]
    assert sum(losses[-2:]) < 0.7 * sum(losses[:2])
    assert all(
        log["loss"] == pytest.approx(log["loss_prototypical"], abs=1e-4) for log in trainer.state.log_history[:-1]
    )
    assert torch.equal(model.classifier.weight, head), "the task loss is off"
