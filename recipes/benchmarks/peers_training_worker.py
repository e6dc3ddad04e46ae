"""One domain adaptation by one library, in a process of its own: called by peers_training.py.

    python peers_training_worker.py LIBRARY METHOD SEED DATA FOUND.json

Each function below is what a user of the library writes, for rows that are read already; its lines are counted. All
train the same LeNet from the same weights with Adam at a constant rate of 1e-3 and otherwise by the library's own
defaults, with as many rows a step and discriminators of one width.
"""

from __future__ import annotations

import inspect
import json
import sys
import time
from pathlib import Path
from typing import Any

import torch
from datasets import load_from_disk
from machine import growth_mib, resident_mib, restart_peak
from torch import Tensor, nn
from transformers import AutoModelForImageClassification

from hf_transfer.data.images import with_pixel_values
from hf_transfer.models.lenet import LeNetConfig

ROWS, EPOCHS, RATE = 64, 10, 1e-3
"""Of each domain a step; over the source; of Adam."""
DOMAINS, SIZE = ("source", "target"), 28
DISCRIMINATOR = 100
"""Width of its hidden layers, as skada's."""


def new_model(seed: int) -> nn.Module:
    torch.manual_seed(seed)
    return AutoModelForImageClassification.from_config(LeNetConfig(num_labels=10))


class Features(nn.Module):
    """The backbone alone: images [B, 1, 28, 28] -> features [B, D]."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.lenet = model.lenet

    def forward(self, images: Tensor) -> Tensor:
        return self.lenet(images).pooler_output


class Net(nn.Module):
    """Images -> logits by layers of these names."""

    def __init__(self, model: nn.Module):
        super().__init__()
        self.features = Features(model)
        self.classifier = nn.Sequential(model.dropout, model.classifier)

    def forward(self, images: Tensor, sample_weight: Any = None) -> Tensor:
        return self.classifier(self.features(images))


def steps_of(data: dict[str, Any]) -> int:
    return EPOCHS * (len(data["source_labels"]) // ROWS)


def hf_transfer(method: str, model: nn.Module, data: dict[str, Any], seed: int, folder: str) -> nn.Module:
    from hf_transfer import DomainAdaptationTrainer, TransferConfig

    small = {"hidden_size": DISCRIMINATOR}
    objectives = {"source_only": {}, "dann": {"dann": small}, "cdan": {"cdan": small}, "coral": {"coral": {}}}
    rows = {"train_dataset": data["source"], "target_dataset": data["target"]}
    config = TransferConfig(folder, max_steps=steps_of(data), per_device_train_batch_size=2 * ROWS, seed=seed)
    config.set_save("no")
    config.learning_rate, config.lr_scheduler_type = RATE, "constant"
    trainer = DomainAdaptationTrainer(model, config, objectives=objectives[method], **rows)
    trainer.train()
    return trainer.adapted_model


def pytorch_adapt(method: str, model: nn.Module, data: dict[str, Any], seed: int, folder: str) -> nn.Module:
    from pytorch_adapt.hooks import AlignerHook, AlignerPlusCHook, CDANHook, ClassifierHook, DANNHook
    from pytorch_adapt.layers import CORALLoss, RandomizedDotProduct
    from pytorch_adapt.models import Discriminator

    net, width = Net(model), model.classifier.in_features
    nets = {"G": net.features, "C": net.classifier}
    if method in ("dann", "cdan"):
        nets["D"] = Discriminator(width, DISCRIMINATOR)
    optimizers = {name: torch.optim.Adam(net.parameters(), lr=RATE) for name, net in nets.items()}
    every = list(optimizers.values())
    if method == "source_only":
        hook = ClassifierHook(every)
    elif method == "dann":
        hook = DANNHook(every)
    elif method == "cdan":
        nets["feature_combiner"] = RandomizedDotProduct([width, 10], width)
        hook = CDANHook(d_opts=[optimizers["D"]], g_opts=[optimizers["G"], optimizers["C"]])
    else:
        hook = AlignerPlusCHook(every, aligner_hook=AlignerHook(loss_fn=CORALLoss()))
    generator = torch.Generator().manual_seed(seed)
    images, labels = data["source_images"], data["source_labels"]
    for _ in range(EPOCHS):
        for rows in torch.randperm(len(labels), generator=generator).split(ROWS):
            other = torch.randint(len(data["target_images"]), (ROWS,), generator=generator)
            batch = {"src_imgs": images[rows], "src_labels": labels[rows], "target_imgs": data["target_images"][other]}
            batch |= {"src_domain": torch.zeros(ROWS), "target_domain": torch.ones(ROWS)}
            hook({**nets, **batch})
    return net


def skada(method: str, model: nn.Module, data: dict[str, Any], seed: int, folder: str) -> nn.Module:
    from skada.deep import CDAN, DANN, DeepCoral

    torch.manual_seed(seed)
    net, width = Net(model), model.classifier.in_features
    settings = {"layer_name": "features", "batch_size": ROWS, "max_epochs": EPOCHS, "train_split": None, "lr": RATE}
    settings |= {"optimizer": torch.optim.Adam, "verbose": 0}
    if method == "source_only":
        made = DeepCoral(net, reg=0, **settings)
    elif method == "coral":
        made = DeepCoral(net, reg=1, **settings)
    elif method == "dann":
        made = DANN(net, reg=1, num_features=width, **settings)
    else:
        made = CDAN(net, reg=1, num_features=width, n_classes=10, max_features=width, **settings)
    images = torch.cat([data["source_images"], data["target_images"]])
    labels = torch.cat([data["source_labels"], torch.full((len(data["target_images"]),), -1)])
    domains = torch.cat([torch.ones(len(data["source_images"])), torch.full((len(data["target_images"]),), -2.0)])
    made.fit(images.numpy(), labels.numpy(), sample_domain=domains.numpy().astype(int))
    return made.module_.base_module_


LIBRARIES = {"hf_transfer": hf_transfer, "pytorch_adapt": pytorch_adapt, "skada": skada}


def lines_of(library: str) -> int:
    """Of a function's body, without blank ones."""
    return sum(bool(line.strip()) for line in inspect.getsource(LIBRARIES[library]).splitlines()[1:])


def read(folder: str) -> dict[str, Any]:
    """Rows of both domains as Datasets, and all rows as tensors."""
    rows = {name: load_from_disk(f"{folder}/{name}") for name in (*DOMAINS, "test")}
    ready = {name: with_pixel_values(rows[name], SIZE, 1) for name in rows}
    data: dict[str, Any] = {name: ready[name] for name in DOMAINS}
    for name, part in ready.items():
        data |= {f"{name}_images": part[:]["pixel_values"], f"{name}_labels": part[:]["labels"]}
    return {**data, "target": data["target"].remove_columns("labels")}


def main() -> None:
    library, method, seed, source, found = sys.argv[1:]
    torch.set_num_threads(1)
    data, model = read(source), new_model(int(seed))
    # imports and a first small run are not what is timed
    few = {name: rows.select(range(4 * ROWS)) if name in DOMAINS else rows[: 4 * ROWS] for name, rows in data.items()}
    LIBRARIES[library](method, new_model(0), few, 0, str(Path(found).parent / "warm_up"))
    restart_peak()
    before, started = resident_mib("VmRSS"), time.process_time()
    made = LIBRARIES[library](method, model, data, int(seed), str(Path(found).parent / "run")).eval()
    seconds, added = time.process_time() - started, growth_mib(before)
    with torch.inference_mode():
        output = made(data["test_images"])
    logits = getattr(output, "logits", output)
    right = (logits.argmax(dim=1) == data["test_labels"]).double().mean().item()
    result = {"accuracy": 100 * right, "seconds": seconds, "lines": lines_of(library)}
    result["memory"] = added
    Path(found).write_text(json.dumps(result))


if __name__ == "__main__":
    main()
