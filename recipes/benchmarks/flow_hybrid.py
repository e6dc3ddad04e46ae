"""Stacks of flow layers, softmax layers and softmax over a few tokens, on one language model: held-out perplexity.

    python recipes/benchmarks/flow_hybrid.py --seeds 0 1 2

Each training is a process of its own that runs recipes/pretraining/wikipedia_hybrid.yaml with the layers of a stack;
one that is finished in --runs_dir is not run again. Writes `flow_hybrid.json` and `flow_hybrid.md`.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

import yaml
from machine import processor_names

from hf_transfer.runs.arguments import read_yaml

ROOT = Path(__file__).parents[2]
RECIPE = ROOT / "recipes" / "pretraining" / "wikipedia_hybrid.yaml"
FLOW, FULL, SLIDING = "flow_attention", "full_attention", "sliding_attention"
WINDOW = 8
"""Tokens that a layer of sliding attention sees."""
STACKS = {
    "flow": [FLOW] * 4,
    "three flow, one softmax": [FLOW, FLOW, FLOW, FULL],
    "softmax": [FULL] * 4,
    "sliding and flow by turns": [SLIDING, FLOW] * 2,
    "sliding and softmax by turns": [SLIDING, FULL] * 2,
    "sliding": [SLIDING] * 4,
}


def train(stack: str, seed: int, runs_dir: Path, steps: int | None) -> float:
    """The held-out perplexity of one training; of the earlier one where it is finished."""
    folder = (runs_dir / f"{stack.replace(' ', '_').replace(',', '')}_{seed}").resolve()
    results = folder / "model" / "results.json"
    if not results.exists():
        folder.mkdir(parents=True, exist_ok=True)
        settings = read_yaml(RECIPE)
        architecture = {**settings["architecture"], "layer_types": STACKS[stack]}
        architecture |= {"sliding_window": WINDOW} if SLIDING in STACKS[stack] else {}
        settings |= {"architecture": architecture, "seed": seed, "output_dir": str(folder), "disable_tqdm": True}
        if steps is not None:
            settings["max_steps"] = steps
        (folder / "recipe.yaml").write_text(yaml.safe_dump(settings))
        command = [sys.executable, str(ROOT / "recipes" / "pretrain.py"), str(folder / "recipe.yaml"), "--overwrite"]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        finished = subprocess.run(command, capture_output=True, text=True, env=environment)
        if finished.returncode:
            raise RuntimeError(f"{' '.join(command)} failed:\n{finished.stderr[-3000:]}")
    perplexity = json.loads(results.read_text())["perplexity"]
    print(f"{stack}, seed {seed}: {perplexity:.1f}", flush=True)
    return perplexity


def markdown(found: dict[str, list[float]], machine: str) -> str:
    lines = ["# Flow, hybrid and softmax stacks on a language model", "", machine, ""]
    lines += [f"Sliding layers see {WINDOW} tokens.", ""]
    lines += ["| stack | perplexity | standard deviation | seeds |", "|---|--:|--:|--:|"]
    for stack, values in found.items():
        deviation = f"{statistics.stdev(values):.1f}" if len(values) > 1 else ""
        lines.append(f"| {stack} | {statistics.mean(values):.1f} | {deviation} | {len(values)} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--steps", type=int, help="in place of the recipe's own number: a quick trial")
    parser.add_argument("--runs_dir", type=Path, default=Path("outputs/flow_hybrid"))
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    found: dict[str, list[float]] = {stack: [] for stack in STACKS}
    machine = f"{processor_names()[0]}, one thread a training; {RECIPE.relative_to(ROOT)}."
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    for seed in arguments.seeds:
        for stack, values in found.items():
            values.append(train(stack, seed, arguments.runs_dir, arguments.steps))
        report = {"machine": machine, "perplexity": found}
        (arguments.output_dir / "flow_hybrid.json").write_text(json.dumps(report, indent=2) + "\n")
        (arguments.output_dir / "flow_hybrid.md").write_text(markdown(found, machine))


if __name__ == "__main__":
    main()
