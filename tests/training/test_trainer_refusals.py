"""What TransferTrainer refuses before anything is trained."""

import multiprocessing
import os
from types import SimpleNamespace

import pytest
import torch

from hf_transfer.training.objectives import check_whole_weights, make_objectives
from hf_transfer.training.trainer import TransferTrainer, check_writable
from hf_transfer.training.trainer_arguments import check_whole_batches
from hf_transfer.training.transfer_config import TransferConfig
from hf_transfer.training.transfer_model import TransferModel
from tests import tiny
from tests.training.test_trainer import config


@pytest.mark.parametrize("given", ["cdan", ["cdan", "mcc"], 3])
def test_objectives_that_are_no_mapping_are_refused(tmp_path, given):
    with pytest.raises(ValueError, match="`objectives` should map names to keywords"):
        config(tmp_path, objectives=given)


def test_a_multiplier_that_is_not_positive_is_refused(tmp_path):
    with pytest.raises(ValueError, match="`head_learning_rate_multiplier` should be positive, got 0"):
        config(tmp_path, head_learning_rate_multiplier=0)


@pytest.mark.parametrize("name", ["l2_sp", "self_ensembling", "moco"])
def test_objectives_that_read_weights_between_forwards_are_refused_under_zero_3(name):
    made = make_objectives({name: {}, "dann": {}})
    for stage in (None, 2):
        check_whole_weights(made, None if stage is None else SimpleNamespace(zero_stage=stage))
    with pytest.raises(ValueError, match=rf"\['{name}'\] read the model's weights between its forwards.*use ZeRO 2"):
        check_whole_weights(made, SimpleNamespace(zero_stage=3))


def test_a_model_for_each_trial_is_refused(tmp_path):
    with pytest.raises(TypeError, match="give a `model`: what objectives keep .* `search` of a plan"):
        TransferTrainer(args=config(tmp_path), model_init=tiny.vit)
    with pytest.raises(TypeError, match="`args` should be a TransferConfig, got NoneType"):
        TransferTrainer(tiny.vit())


def test_a_given_optimizer_has_to_train_what_objectives_train(tmp_path, digit_domains):
    model = tiny.vit()
    made = {"dann": {"hidden_size": 8}}
    of_model = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(ValueError, match=r"`optimizers` lacks parameters of \['dann'\], which would never train"):
        TransferTrainer(
            model, config(tmp_path), train_dataset=digit_domains, objectives=made, optimizers=(of_model, None)
        )
    whole = TransferModel(model, make_objectives(made))
    of_all = torch.optim.SGD(whole.parameters(), lr=0.1)
    changed = config(tmp_path, head_learning_rate_multiplier=10.0)
    with pytest.raises(ValueError, match=r"\['head_learning_rate_multiplier'\] shape the trainer's own optimizer"):
        TransferTrainer(whole, changed, train_dataset=digit_domains, optimizers=(of_all, None))
    trainer = TransferTrainer(whole, config(tmp_path), train_dataset=digit_domains, optimizers=(of_all, None))
    before = [weight.detach().clone() for weight in whole.objectives.parameters()]
    trainer.train()
    after = list(whole.objectives.parameters())
    assert not all(torch.equal(old, new) for old, new in zip(before, after, strict=True))


def test_a_loss_beside_the_objectives_is_refused(tmp_path, digits):
    with pytest.raises(TypeError, match="`compute_loss_func` would not be asked: .* write an `Objective`"):
        TransferTrainer(
            tiny.vit(), config(tmp_path), train_dataset=digits, compute_loss_func=lambda *_, **__: torch.tensor(5.0)
        )


def test_a_model_of_which_nothing_trains_is_refused(tmp_path, digit_domains):
    model = tiny.vit().requires_grad_(False)
    made = {"dann": {"hidden_size": 8}}
    with pytest.raises(ValueError, match="no parameter of the ViTForImageClassification takes a gradient"):
        TransferTrainer(model, config(tmp_path), train_dataset=digit_domains, objectives=made)
    assert TransferTrainer(model, config(tmp_path), eval_dataset=digit_domains).evaluate()["eval_loss"] > 0


@pytest.mark.parametrize(
    "changes, keywords, message",
    [
        ({}, {"objectives": {"bss": {}}}, "give `objectives` to the TransferModel or to the trainer, not to both"),
        ({"objectives": {"bss": {}}}, {}, "give `objectives` to the TransferModel or to the trainer, not to both"),
        ({"readout": "linear"}, {}, "give `readout` to the TransferModel"),
        ({"label_smoothing_factor": 0.1}, {}, "`label_smoothing_factor` is 0.1, and the TransferModel was made with"),
    ],
)
def test_settings_that_a_ready_transfer_model_would_not_read(tmp_path, digits, changes, keywords, message):
    model = TransferModel(tiny.vit(), {})
    with pytest.raises(ValueError, match=message):
        TransferTrainer(model, config(tmp_path, **changes), train_dataset=digits, **keywords)


def test_batches_that_processes_would_share(tmp_path, monkeypatch, digits, digit_domains):
    args = config(tmp_path, accelerator_config={"split_batches": True})
    model = TransferModel(tiny.vit(), make_objectives({"dann": {"hidden_size": 8}}))
    check_whole_batches(args, model, digit_domains.column_names)
    monkeypatch.setattr(TransferConfig, "world_size", 2)
    check_whole_batches(args, TransferModel(tiny.vit()), digits.column_names)
    check_whole_batches(config(tmp_path), model, digit_domains.column_names)
    with pytest.raises(ValueError, match="`split_batches` .* one would get the source and another the target"):
        check_whole_batches(args, model, digit_domains.column_names)


# Bad input: each is refused before any training.


def test_no_label_column(tmp_path, sentences):
    rows = sentences.rename_column("labels", "book")
    with pytest.raises(ValueError, match=r"training dataset has no label column: .*\n?.*rename_column"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


@pytest.mark.parametrize("label", [3, -1])
def test_a_label_outside_the_classes(tmp_path, sentences, label):
    rows = tiny.with_column(sentences, "labels", [label] + [0] * 23)
    with pytest.raises(ValueError, match=rf"training dataset holds labels outside 0\.\.2: \[{label}\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


def test_a_label_outside_the_classes_of_the_evaluation_set(tmp_path, sentences):
    rows = tiny.with_column(sentences, "labels", [3] + [0] * 23)
    with pytest.raises(ValueError, match=r"evaluation dataset holds labels outside 0\.\.2: \[3\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=sentences, eval_dataset=rows)
    with pytest.raises(ValueError, match=r"evaluation \(late\) dataset holds labels outside 0\.\.2: \[3\]"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=sentences, eval_dataset={"late": rows})


def test_labels_that_are_no_numbers(tmp_path, sentences):
    rows = tiny.with_column(sentences, "labels", ["Emma"] * 24)
    with pytest.raises(ValueError, match=r"should hold class numbers, got .*class_encode_column"):
        TransferTrainer(tiny.bert(), config(tmp_path), train_dataset=rows)


def test_one_domain_missing(tmp_path, digits):
    spec = {"mcc": {}}
    with pytest.raises(ValueError, match="compare two domains and the training dataset has no `domain` column"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits, objectives=spec)
    source = tiny.with_column(digits, "domain", [0] * 64)
    with pytest.raises(ValueError, match=r"both 0 \(source\) and 1 \(target\), got only \[0\]"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=source, objectives=spec)


def test_an_unknown_objective_or_keyword(tmp_path, digits):
    with pytest.raises(ValueError, match="unknown objective `bbs`, accepted"):
        TransferTrainer(tiny.vit(), config(tmp_path, objectives={"bbs": {}}), train_dataset=digits)
    with pytest.raises(TypeError, match=r"objective `bss` has no keyword `kk`"):
        TransferTrainer(tiny.vit(), config(tmp_path, objectives={"bss": {"kk": 2}}), train_dataset=digits)


def test_a_model_without_a_linear_head(tmp_path, digits):
    with pytest.raises(ValueError, match="ViTModel has no head: it is a backbone alone"):
        TransferTrainer(tiny.vit().vit, config(tmp_path), train_dataset=digits)


def test_an_empty_dataset(tmp_path, digits):
    with pytest.raises(ValueError, match="the training dataset is empty"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits.select([]))
    with pytest.raises(ValueError, match="the evaluation dataset is empty"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=digits, eval_dataset=digits.select([]))


def test_a_dataset_of_another_library(tmp_path):
    with pytest.raises(TypeError, match=r"`train_dataset` should be a datasets\.Dataset, got list"):
        TransferTrainer(tiny.vit(), config(tmp_path), train_dataset=[1, 2])


def test_plain_training_arguments(tmp_path):
    from transformers import TrainingArguments

    with pytest.raises(TypeError, match="`args` should be a TransferConfig, got TrainingArguments"):
        TransferTrainer(tiny.vit(), TrainingArguments(output_dir=str(tmp_path), use_cpu=True))


def test_objectives_in_two_places(tmp_path):
    with pytest.raises(ValueError, match="to the TransferModel or to the trainer, not to both"):
        TransferTrainer(TransferModel(tiny.vit()), config(tmp_path), objectives={"bss": {}})


def test_an_output_folder_under_a_file(tmp_path):
    (tmp_path / "notes").write_text("text")
    with pytest.raises(NotADirectoryError, match=r"notes is a file\. Choose another"):
        TransferTrainer(tiny.vit(), config(tmp_path / "notes" / "run"))


def _write_as_nobody(folder: str, answer) -> None:
    if os.geteuid() == 0:
        os.setuid(65534)
    try:
        check_writable(folder)
        answer.send("accepted")
    except PermissionError as error:
        answer.send(str(error))


def test_an_output_folder_without_permission(tmp_path):
    """Asked by a process of another user, since root may write everywhere."""
    tmp_path.chmod(0o555)
    for parent in tmp_path.parents[:3]:
        parent.chmod(0o755)
    here, there = multiprocessing.Pipe()
    process = multiprocessing.get_context("fork").Process(target=_write_as_nobody, args=(str(tmp_path / "run"), there))
    process.start()
    process.join(20)
    assert here.poll(1)
    assert (
        here.recv()
        == f"cannot write to `{tmp_path / 'run'}`: no permission on {tmp_path}. Choose another output folder."
    )
