"""A training whose numbers are no longer finite says which term, which step, and how to go on."""

import pytest
import torch

from hf_transfer.core.diverged import TrainingDiverged
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from tests import tiny

DECOMPOSING = ["bsp", "bss", "rsd"]


def trainer(folder, rows, objectives, **changes) -> TransferTrainer:
    torch.manual_seed(0)
    settings = {"per_device_train_batch_size": 8, "max_steps": 4, "save_steps": 2, "report_to": [], "use_cpu": True}
    args = TransferConfig(output_dir=str(folder), disable_tqdm=True, **{**settings, **changes})
    return TransferTrainer(tiny.vit(), args, train_dataset=rows, objectives=objectives)


def break_at(made: TransferTrainer, step: int) -> None:
    """The backbone's features turn into NaN at a step, counted from 1."""

    def spoil(module, inputs, output):
        return output * float("nan") if made.state.global_step == step - 1 and module.training else None

    made.adapted_model.vit.layernorm.register_forward_hook(spoil)


@pytest.mark.parametrize("name", DECOMPOSING)
def test_a_decomposition_of_what_is_no_number(tmp_path, digit_domains, name):
    made = trainer(tmp_path, digit_domains, {name: {}})
    break_at(made, 3)
    rows = 8 if name == "bss" else "[0-9]"
    with pytest.raises(TrainingDiverged, match=rf"step 3: objective `{name}` could not .* {rows} of 8 rows") as caught:
        made.train()
    assert f"Resume from {tmp_path / 'checkpoint-2'}" in str(caught.value)
    trainer(tmp_path, digit_domains, {name: {}}).train(resume_from_checkpoint=True)


def test_a_loss_that_is_no_number_is_not_trained_on(tmp_path, digit_domains):
    made = trainer(tmp_path, digit_domains, {"coral": {}}, save_strategy="no")
    break_at(made, 2)
    with pytest.raises(TrainingDiverged, match="step 2: the loss is nan .*`task`, `coral`.*No checkpoint was saved"):
        made.train()
    assert all(parameter.isfinite().all() for parameter in made.adapted_model.parameters())


def test_a_label_that_the_model_rules_out_is_named_as_the_cause(tmp_path, digit_domains):
    made = trainer(tmp_path, digit_domains, {}, save_strategy="no")
    with torch.no_grad():
        made.adapted_model.classifier.bias[:] = float("-inf")
        made.adapted_model.classifier.bias[0] = 0.0
    with pytest.raises(TrainingDiverged, match="the loss is inf.* no label is a class whose logit .* -inf"):
        made.train()
