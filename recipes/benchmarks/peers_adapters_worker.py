"""One fine-tuning by one library, in a process of its own: called by peers_adapters.py.

    python peers_adapters_worker.py LIBRARY METHOD SEED MODEL DATA FOUND.json

Each function below is what a user of the library writes, for rows that are tokens already; its lines are counted. All
start from the same folder of MiniLM and train pooler and classifier with what the method adds.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset, load_from_disk
from machine import growth_mib, resident_mib, restart_peak
from torch import nn
from transformers import AutoModelForSequenceClassification

RATES = {"fine_tuning": 1e-4, "lora": 1e-3, "bottleneck": 1e-3}
WIDTH, RANK, ALPHA = 24, 8, 16
"""Of the bottleneck, a sixteenth of MiniLM's; of LoRA."""
LAYERS, HEAD = ["query", "value"], ["classifier", "pooler"]
FEW = 64
"""Rows of the run before the timed one."""


def settings_of(method: str, seed: int) -> dict[str, Any]:
    """Arguments of transformers' Trainer, on which all three libraries build."""
    chosen = {"learning_rate": RATES[method], "per_device_train_batch_size": 16, "num_train_epochs": 2}
    chosen |= {"lr_scheduler_type": "linear", "save_strategy": "no", "report_to": [], "use_cpu": True, "seed": seed}
    return {**chosen, "disable_tqdm": True, "logging_strategy": "no", "dataloader_pin_memory": False}


def hf_transfer(method: str, model: nn.Module, rows: Dataset, seed: int, folder: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model

    from hf_transfer import TaskAdaptationTrainer, TransferConfig
    from hf_transfer.tuners.residual import ResidualConfig

    if method == "lora":
        settings = {"lora_alpha": ALPHA, "target_modules": LAYERS, "modules_to_save": HEAD}
        model = get_peft_model(model, LoraConfig(r=RANK, **settings))
    elif method == "bottleneck":
        model = get_peft_model(model, ResidualConfig(r=WIDTH, modules_to_save=HEAD))
    config = TransferConfig(folder, **settings_of(method, seed))
    trainer = TaskAdaptationTrainer(model, config, train_dataset=rows)
    trainer.train()
    return trainer.adapted_model


def peft(method: str, model: nn.Module, rows: Dataset, seed: int, folder: str) -> nn.Module:
    from peft import LoraConfig, get_peft_model
    from transformers import Trainer, TrainingArguments

    if method == "lora":
        settings = {"lora_alpha": ALPHA, "target_modules": LAYERS, "modules_to_save": HEAD}
        model = get_peft_model(model, LoraConfig(r=RANK, **settings))
    trainer = Trainer(model, TrainingArguments(folder, **settings_of(method, seed)), train_dataset=rows)
    trainer.train()
    return model


def adapters(method: str, model: nn.Module, rows: Dataset, seed: int, folder: str) -> nn.Module:
    from adapters import AdapterTrainer, DoubleSeqBnConfig, LoRAConfig, init
    from transformers import TrainingArguments

    init(model)
    if method == "lora":
        config = LoRAConfig(r=RANK, alpha=ALPHA, attn_matrices=["q", "v"])
    else:
        config = DoubleSeqBnConfig(reduction_factor=model.config.hidden_size / WIDTH, non_linearity="gelu")
    model.add_adapter("task", config=config)
    model.train_adapter("task")
    model.bert.pooler.requires_grad_(True)
    trainer = AdapterTrainer(
        model=model, args=TrainingArguments(folder, **settings_of(method, seed)), train_dataset=rows
    )
    trainer.train()
    return model


LIBRARIES = {"hf_transfer": hf_transfer, "peft": peft, "adapters": adapters}


def lines_of(library: str) -> int:
    """Of a function's body, without blank ones."""
    return sum(bool(line.strip()) for line in inspect.getsource(LIBRARIES[library]).splitlines()[1:])


def new_model(folder: str, seed: int, classes: int) -> nn.Module:
    torch.manual_seed(seed)
    return AutoModelForSequenceClassification.from_pretrained(folder, num_labels=classes)


def accuracy(model: nn.Module, rows: Dataset) -> float:
    right = 0
    with torch.inference_mode():
        for batch in rows.iter(batch_size=100):
            labels = batch.pop("labels")
            right += int((model(**batch).logits.argmax(dim=1) == labels).sum())
    return 100 * right / len(rows)


def main() -> None:
    library, method, seed, folder, data, found = sys.argv[1:]
    torch.set_num_threads(1)
    rows = {name: load_from_disk(f"{data}/{name}").with_format("torch") for name in ("train", "test")}
    classes = int(rows["train"]["labels"][:].max()) + 1
    where = Path(found).parent
    # imports and a first small run are not what is timed
    few = rows["train"].select(range(FEW))
    LIBRARIES[library](method, new_model(folder, 0, classes), few, 0, str(where / "warm_up"))
    model = new_model(folder, int(seed), classes)
    restart_peak()
    before, started = resident_mib("VmRSS"), time.process_time()
    made = LIBRARIES[library](method, model, rows["train"], int(seed), str(where / "run")).eval()
    seconds, added = time.process_time() - started, growth_mib(before)
    trained = sum(parameter.numel() for parameter in made.parameters() if parameter.requires_grad)
    result = {"accuracy": accuracy(made, rows["test"]), "seconds": seconds, "memory": added, "trained": trained}
    Path(found).write_text(json.dumps({**result, "lines": lines_of(library)}))


if __name__ == "__main__":
    main()
