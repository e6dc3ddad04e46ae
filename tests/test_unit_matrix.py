"""Every registered objective on tokens and on pixels trains, resumes exactly and composes with LoRA, or refuses."""

import math

import pytest
import torch
from peft import LoraConfig, get_peft_model

from hf_transfer.core.objective import AlternatingObjective
from hf_transfer.training.objectives import REGISTRY, objective_class
from hf_transfer.training.trainer import TransferTrainer
from tests.marks import slow
from tests.test_methods import keywords_for
from tests.test_units import config, setting
from tests.training.test_trainer import assert_same, state_of

OF_ROWS = {
    *("co_tuning", "delta", "mldg", "siatl"),
    *("maml", "matching", "prototypical", "reptile"),
    *("bi_tuning", "fixmatch", "flexmatch", "mean_teacher", "self_ensembling"),
    *("label_sets", "lejepa", "moco", "moco_v3", "simclr", "simsiam"),
}
"""They compare whole rows."""
OTHERS = {"clip", "siglip", "pathways", "knowledge_flow", "cyclegan", "cycada", "dd", "regda", "unbiased_teacher"}
"""They need two towers, a hub of models, pictures of a known size, numbers to predict, or boxes."""
OF_MAPS = {"advent", "dacs"}
"""They need maps of pixels."""
TOO_FEW = {"rsd"}
"""More units than dimensions leave nothing to compare: a training stops and says so."""
METHODS = sorted(set(REGISTRY) - OF_ROWS - OTHERS - TOO_FEW)
PLAIN = tuple(name for name in METHODS if not issubclass(objective_class(name), AlternatingObjective))
"""Those of one backward pass a step, which compose."""
UNITS = ["tokens", "pixels"]
ROWS = [(name, units) for name in METHODS for units in UNITS if name not in OF_MAPS or units == "pixels"]
PIXELS = ("advent", "dacs", "dann", "cdan", "mcd", "l2_sp", "coral")
"""Objectives whose rows of pixels are not left to the slow tests; of the rows of tokens every fourth one is not."""
FEW_ROWS = [
    row if row[0] in PIXELS or (row[1] == "tokens" and number % 8 < 2) else slow(*row)
    for number, row in enumerate(ROWS)
]


def keywords_of(name: str, model: torch.nn.Module) -> dict:
    """Small networks; heads and teachers that fit the model."""
    keywords = keywords_for(name, None)
    if "source_head" in keywords:
        head = next(module for module in model.modules() if hasattr(module, "classifier"))
        keywords["source_head"] = torch.nn.Linear(head.classifier.weight.shape[1], 7)
    if "teacher" in keywords:
        keywords["teacher"] = type(model)(model.config)
    return keywords


def make(name: str, units: str, folder, *, lora: bool = False, **changes) -> TransferTrainer:
    torch.manual_seed(0)
    model, rows, more = setting(units, None)
    keywords = keywords_of(name, model)
    if lora:
        model = get_peft_model(model, LoraConfig(r=2, target_modules="all-linear", modules_to_save=["classifier"]))
    args = config(folder, logging_steps=1, disable_tqdm=True, **changes)
    return TransferTrainer(model, args, objectives={name: keywords}, train_dataset=rows, **more)


def losses_of(trainer: TransferTrainer) -> list[float]:
    return [value for log in trainer.state.log_history for term, value in log.items() if term.startswith("loss")]


@pytest.mark.parametrize(("name", "units"), FEW_ROWS)
def test_it_trains_and_a_resumed_run_equals_a_straight_one(name, units, tmp_path):
    straight = make(name, units, tmp_path, save_strategy="steps", save_steps=1)
    start = state_of(straight)
    straight.train()
    assert losses_of(straight) and all(map(math.isfinite, losses_of(straight)))
    assert any(not torch.equal(value, start[key]) for key, value in state_of(straight).items() if "model." in key)
    resumed = make(name, units, tmp_path)
    with torch.no_grad():
        for parameter in resumed.transfer_model.parameters():
            parameter.add_(1.0)
    resumed.train(resume_from_checkpoint=str(tmp_path / "checkpoint-1"))
    assert_same(state_of(resumed), state_of(straight), rtol=0, atol=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "units"), ROWS)
def test_it_composes_with_lora(name, units, tmp_path):
    trainer = make(name, units, tmp_path, lora=True, max_steps=1)
    start = {key: value.clone() for key, value in trainer.adapted_model.named_parameters()}
    trainer.train()
    assert all(map(math.isfinite, losses_of(trainer)))
    for key, value in trainer.adapted_model.named_parameters():
        assert value.requires_grad or torch.equal(value, start[key]), f"{key} is frozen and moved"


@pytest.mark.parametrize("units", UNITS)
@pytest.mark.parametrize("name", sorted(OF_ROWS | OTHERS))
def test_what_is_not_defined_for_parts_of_rows_is_refused_before_training(name, units, tmp_path, monkeypatch):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    reason = (
        "whole rows"
        if name in OF_ROWS
        else "two: load|models of a hub|needs images|(has|gives) none|defined for regression"
    )
    with pytest.raises(ValueError, match=reason):
        make(name, units, tmp_path)


def test_no_method_is_left_out():
    assert set(METHODS) | OF_ROWS | OTHERS | TOO_FEW == set(REGISTRY)
    assert all(objective_class(name) for name in METHODS)
