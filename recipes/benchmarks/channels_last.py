"""A training step of convolutional nets with `channels_last: true` beside one in the usual layout, in turn.

    python recipes/benchmarks/channels_last.py

Nets of transformers from random weights, 16 pictures of 64 pixels, float32; medians of the processor's time of a
forward and backward pass. Writes `channels_last.json` and `.md` into the output folder.
"""

from __future__ import annotations

import argparse
import copy
import statistics
import time
from pathlib import Path

import torch
from cells import write_report
from machine import processor_names
from transformers import AutoConfig, AutoModelForImageClassification, PreTrainedModel, set_seed

from hf_transfer.runs.models import in_channels_last

EFFICIENTNET_B0 = {
    "model_type": "efficientnet",
    "width_coefficient": 1.0,
    "depth_coefficient": 1.0,
    "hidden_dim": 1280,
}
NETS: dict[str, dict] = {
    "resnet": {},
    "convnextv2": {},
    "regnet": {},
    "segformer": {},
    "mobilenet_v2": {},
    "efficientnet_b0": EFFICIENTNET_B0,
    "efficientnet_lite0": {**EFFICIENTNET_B0, "hidden_act": "relu6", "squeeze_expansion_ratio": 1e-3},
}
"""Name, which is the kind where none is said -> what differs from the defaults of the kind."""
PICTURES, SIZE = 16, 64


def forms(net: str) -> dict[str, PreTrainedModel]:
    """The same net in both layouts."""
    set_seed(0)
    config = AutoConfig.for_model(**{"model_type": net, **NETS[net]}, num_labels=10)
    usual = AutoModelForImageClassification.from_config(config).train()
    return {"usual": usual, "channels_last": in_channels_last(copy.deepcopy(usual))}


def measure(net: str, rounds: int) -> dict:
    """Milliseconds of a step in either layout."""
    made, pixels = forms(net), torch.randn(PICTURES, 3, SIZE, SIZE)
    labels = torch.arange(PICTURES) % 10
    times: dict[str, list[float]] = {form: [] for form in made}
    for index in range(rounds + 1):
        for form, model in made.items():
            start = time.process_time()
            model(pixel_values=pixels, labels=labels).loss.backward()
            if index:
                times[form].append(1e3 * (time.process_time() - start))
    usual, turned = (statistics.median(times[form]) for form in times)
    return {"net": net, "usual_ms": round(usual), "channels_last_ms": round(turned), "ratio": round(usual / turned, 2)}


def markdown(machine: str, rows: list[dict]) -> str:
    lines = ["# `channels_last: true` beside the usual layout", "", machine, ""]
    lines += ["| net | usual, ms | channels_last, ms | usual / channels_last |", "|---|--:|--:|--:|"]
    lines += ["| " + " | ".join(map(str, row.values())) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--nets", nargs="+", choices=list(NETS), default=list(NETS))
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    torch.set_flush_denormal(True)  # what nets of random weights compute with, and trained ones do not
    rows = []
    for net in arguments.nets:
        rows.append(measure(net, arguments.rounds))
        print(rows[-1], flush=True)
    machine = f"{processor_names()[0]}, one thread, torch {torch.__version__}, {PICTURES} pictures of {SIZE} pixels."
    write_report(arguments.output_dir, "channels_last", {"machine": machine, "rows": rows}, markdown(machine, rows))


if __name__ == "__main__":
    main()
