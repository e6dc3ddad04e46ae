"""Every task-adaptation objective composes with any classifier or regression model, without a name of any layer."""

import inspect
import math

import pytest
import torch
from torch import nn
from transformers import default_data_collator

from hf_transfer.modeling.anatomy import feature_width
from hf_transfer.task_adaptation import OBJECTIVES
from hf_transfer.training.trainer import TransferConfig, TransferTrainer
from hf_transfer.training.transfer_model import objective_class
from tests import tiny

CLASSES_ONLY = {"co_tuning", "bi_tuning"}
MODELS = {**tiny.TEXT_MODELS, **tiny.IMAGE_MODELS}


def with_second_view(features):
    batch = default_data_collator(features)
    inputs = [name for name in ("pixel_values", "input_ids", "attention_mask") if name in batch]
    return {**batch, **{f"view_{name}": batch[name].flip(-1) for name in inputs}}


def objectives_for(model, name: str) -> dict:
    """All of them at once, each with what it asks for."""
    keywords = {"samples": 2, "source_head": nn.Linear(feature_width(model), 5), "queue_size": 2}
    if name == "bert":
        keywords["mask_token_id"] = 1
    made = {}
    for objective in OBJECTIVES:
        is_for_text = objective == "siatl"
        if (is_for_text and name not in tiny.TEXT_MODELS) or (
            model.config.num_labels == 1 and objective in CLASSES_ONLY
        ):
            continue
        cls = objective_class(objective)
        made[objective] = cls(**{k: v for k, v in keywords.items() if k in inspect.signature(cls).parameters})
    return made


def train(folder, model, name, rows):
    args = TransferConfig(
        output_dir=str(folder),
        layer_learning_rate_decay=0.8,
        learning_rate=1e-2,
        max_steps=2,
        per_device_train_batch_size=8,
        logging_steps=1,
        save_strategy="no",
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
    )
    made = objectives_for(model, name)
    collator = with_second_view if "bi_tuning" in made else default_data_collator
    trainer = TransferTrainer(model, args, train_dataset=rows, objectives=made, data_collator=collator)
    trainer.train()
    return trainer, [log for log in trainer.state.log_history if "loss" in log]


@pytest.mark.parametrize("name", MODELS)
def test_all_of_them_together_on_a_classifier(tmp_path, sentences, digits, name):
    torch.manual_seed(0)
    rows = sentences if name in tiny.TEXT_MODELS else digits.select(range(24))
    trainer, logs = train(tmp_path, MODELS[name](), name, rows)
    expected = set(OBJECTIVES) - ({"siatl"} if name in tiny.IMAGE_MODELS else set())
    assert set(trainer.transfer_model.objectives) == expected
    for log in logs:
        assert all(math.isfinite(log[f"loss_{objective}"]) for objective in expected), log
        assert math.isfinite(log["grad_norm"]) and log["grad_norm"] > 0
    # batch norms read the batch, and the frozen start its stored statistics
    for objective in ("ewc",) if name == "resnet" else ("ewc", "lwf"):
        start, moved = (log[f"loss_{objective}"] for log in logs)
        assert start == pytest.approx(0.0, abs=1e-4) and moved > 1e-4, "the start costs nothing, one step away does"


@pytest.mark.parametrize("name", ["bert", "resnet", "flowformer"])
def test_all_but_those_of_classes_on_a_regression_model(tmp_path, sentences, digits, name):
    torch.manual_seed(0)
    rows = sentences if name in tiny.TEXT_MODELS else digits.select(range(24))
    rows = tiny.with_column(rows, "labels", [0.1 * place for place in range(24)])
    _, logs = train(tmp_path, MODELS[name](num_labels=1), name, rows)
    for log in logs:
        terms = {term: value for term, value in log.items() if term.startswith("loss")}
        assert len(terms) == (8 if name in tiny.TEXT_MODELS else 7) and all(map(math.isfinite, terms.values())), terms
