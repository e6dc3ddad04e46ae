"""The loss of an evaluation is the same at every size of a batch."""

import numpy as np
import pytest
import torch
from accelerate import Accelerator
from datasets import Dataset
from torch import nn
from transformers import AutoModelForTokenClassification

from hf_transfer import TransferConfig
from hf_transfer.training.evaluation_loss import EvaluationLoss
from hf_transfer.training.trainer import TransferTrainer
from tests import tiny


def evaluated(model, rows: Dataset, folder, batch_size: int) -> float:
    config = TransferConfig(folder, per_device_eval_batch_size=batch_size, report_to=[], use_cpu=True)
    return TransferTrainer(model, config, eval_dataset=rows).evaluate()["eval_loss"]


def test_rows_without_labels_have_no_part_in_it(tmp_path):
    model = tiny.vit()
    pixels = np.random.default_rng(0).normal(size=(12, model.config.num_channels, *[model.config.image_size] * 2))
    labels = [0, 1, 2, -100, -100, -100, -100, -100, 1, -100, 0, 1]
    rows = Dataset.from_dict({"pixel_values": pixels.astype("float32"), "labels": labels}).with_format("torch")
    with torch.no_grad():
        expected = nn.functional.cross_entropy(model.eval()(rows["pixel_values"][:]).logits, torch.tensor(labels))
    for batch_size in (12, 4, 5):
        assert evaluated(model, rows, tmp_path, batch_size) == pytest.approx(expected.item(), abs=1e-6)


def test_words_count_alike_in_long_and_short_rows(tmp_path):
    model = AutoModelForTokenClassification.from_config(tiny.bert().config)
    rng = np.random.default_rng(0)
    ids = torch.tensor(rng.integers(1, model.config.vocab_size, (8, 6)))
    labels = torch.tensor(rng.integers(0, model.config.num_labels, (8, 6)))
    labels[:4, 1:] = -100
    rows = Dataset.from_dict({"input_ids": ids.tolist(), "labels": labels.tolist()}).with_format("torch")
    with torch.no_grad():
        logits = model.eval()(ids).logits
    expected = nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten()).item()
    for batch_size in (8, 4, 3):
        assert evaluated(model, rows, tmp_path, batch_size) == pytest.approx(expected, abs=1e-6)


def test_where_every_row_counts_alike_nothing_is_changed():
    loss = EvaluationLoss()
    assert loss.mean(Accelerator(cpu=True)) is None
    for items in (4, 2):
        loss.add(torch.tensor(1.0), torch.tensor(items), items)
    assert loss.mean(Accelerator(cpu=True)) is None
    loss.add(torch.tensor(3.0), torch.tensor(2), 4)
    assert loss.mean(Accelerator(cpu=True)) == pytest.approx(12 / 8)
    loss.add(torch.tensor(3.0), None, 4)
    assert loss.mean(Accelerator(cpu=True)) is None
