"""Sinusoid regression of the MAML paper: the squared error of a new sinusoid after 0, 1 and 10 steps on K points.

    y = A sin(x - phase),   A ~ U(.1, 5),   phase ~ U(0, pi),   x ~ U(-5, 5)

A network 1-40-40-1 with ReLU as a Hugging Face model; 600 sinusoids to train on, 100 others to measure, alpha .01. The
paper trains for 70,000 steps of 25 sinusoids; here there are far fewer, so the figures are above its own.
"""

from __future__ import annotations

import math
import time
from pathlib import Path

import torch
from cells import COMMON
from datasets import Dataset
from torch import Tensor, nn
from transformers import PreTrainedConfig, PreTrainedModel
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.trainer_utils import set_seed

from hf_transfer.evaluation.meta_learning import evaluate_adaptation
from hf_transfer.few_shot.maml import MAML
from hf_transfer.training.family_trainers import TaskAdaptationTrainer
from hf_transfer.training.trainer import TransferConfig

POINTS, TASKS, NEW_TASKS, ALPHA = 30, 600, 100, 0.01
STEPS = (0, 1, 10)
JOINT = "joint pre-training"
KINDS: dict[str, dict] = {
    "maml": {"objective": "maml", "keywords": {"inner_steps": 1}, "steps": 1500},
    "fomaml": {"objective": "maml", "keywords": {"inner_steps": 1, "first_order": True}, "steps": 1500},
    "reptile": {"objective": "reptile", "keywords": {"inner_steps": 5}, "steps": 1500},
    JOINT: {"objective": None, "keywords": {}, "steps": 1500},
}
ROWS = [f"{kind}, K = {shots}" for shots in (5, 10) for kind in KINDS]


class CurveConfig(PreTrainedConfig):
    """Of a small network for curves."""

    model_type = "curve"
    hidden_size: int = 40


class Curve(PreTrainedModel):
    """1-40-40-1 with ReLU; `input_values` [B, 1] -> `logits` [B, 1]."""

    config_class = CurveConfig
    base_model_prefix = "body"
    main_input_name = "input_values"

    def __init__(self, config: CurveConfig):
        super().__init__(config)
        width = config.hidden_size
        self.body = nn.Sequential(nn.Linear(1, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU())
        self.head = nn.Linear(width, 1)
        self.post_init()

    def _init_weights(self, module: nn.Module) -> None:
        """PyTorch's own."""

    def forward(self, input_values: Tensor, labels: Tensor | None = None) -> SequenceClassifierOutput:
        return SequenceClassifierOutput(logits=self.head(self.body(input_values)))


def sinusoids(count: int, seed: int) -> Dataset:
    """Points of so many sinusoids: `input_values`, `labels`, and `domain`, the number of the sinusoid."""
    generator = torch.Generator().manual_seed(seed)
    x = torch.rand(count, POINTS, generator=generator) * 10 - 5
    amplitude = 0.1 + 4.9 * torch.rand(count, 1, generator=generator)
    phase = math.pi * torch.rand(count, 1, generator=generator)
    y = amplitude * torch.sin(x - phase)
    columns = {"input_values": x.reshape(-1, 1).tolist(), "labels": y.flatten().tolist()}
    domains = torch.arange(count).repeat_interleave(POINTS).tolist()
    return Dataset.from_dict({**columns, "domain": domains}).with_format("torch")


def measure(row: str, seed: int, folder: Path, quick: bool) -> dict[str, float]:
    """Train, then adapt to new sinusoids by gradient descent on K points, measured on 10 others."""
    kind, shots = KINDS[row.split(",")[0]], int(row.rsplit(" ", 1)[1])
    set_seed(seed)
    model = Curve(CurveConfig(num_labels=1, problem_type="regression"))
    episode = {"ways": 1, "shots": shots, "queries": shots, "groups": "environments", "inner_learning_rate": ALPHA}
    settings = {**COMMON, "learning_rate": 1e-3, "weight_decay": 0.0, "lr_scheduler_type": "constant", "seed": seed}
    settings |= {"max_steps": 2 if quick else kind["steps"], "logging_steps": 500, "use_cpu": True}
    settings |= {"remove_unused_columns": True, "per_device_train_batch_size": 8 * 2 * shots}
    rows = sinusoids(TASKS, seed=1000 + seed)
    if kind["objective"] is None:
        rows = rows.remove_columns("domain")
    else:
        keywords = {**episode, **kind["keywords"], "episodes_per_batch": 8}
        settings |= {"objectives": {kind["objective"]: keywords}, "task_loss_weight": 0.0}
    if kind["objective"] == "reptile":
        settings |= {"optim": "sgd", "learning_rate": 1.0, "lr_scheduler_type": "linear", "warmup_steps": 0}
        settings |= {"max_grad_norm": 0.0}
    started = time.process_time()
    trainer = TaskAdaptationTrainer(model, TransferConfig(str(folder), **settings), train_dataset=rows)
    trainer.train()
    seconds = time.process_time() - started
    adapting = MAML(**{**episode, "queries": 10}, inner_steps=1, first_order=True)
    measured = evaluate_adaptation(
        trainer, sinusoids(NEW_TASKS, seed=9), adapting, steps=STEPS, episodes=NEW_TASKS, seed=0
    )["inductive"]
    found = {f"error after {count} steps": measured[count][0] for count in STEPS}
    return {**found, "seconds": seconds}
