"""Time of one generated token by context: the constant flow state beside the softmax twin's cache of keys and values.

    python recipes/benchmarks/flow_decoding.py --contexts 256 4096 16384 --batch_sizes 1 8

Both models have 4 layers of width 256 and 4 heads, in float32. A cache is filled by one pass over the context, then
tokens are taken one at a time, in turn; medians are reported, and the MiB of each cache. The twin has transformers'
dynamic cache, which copies keys and values as it grows, and the static one; the ratio is to the faster. Writes
`flow_decoding.json` and `flow_decoding.md`.
"""

import argparse
import json
import statistics
import time
from pathlib import Path

import torch
from machine import processor_names
from transformers import DynamicCache, StaticCache
from transformers.cache_utils import Cache

from hf_transfer.models.flowformer import FlowformerConfig, FlowformerForCausalLM

SIZES = {"hidden_size": 256, "num_hidden_layers": 4, "num_attention_heads": 4, "intermediate_size": 1024}
TWINS = ("flow", "sdpa")


def make_model(attention: str, longest: int) -> FlowformerForCausalLM:
    torch.manual_seed(0)
    config = FlowformerConfig(
        **SIZES, vocab_size=1000, max_position_embeddings=longest, attn_implementation=attention, is_causal=True
    )
    return FlowformerForCausalLM(config).eval()


def num_bytes(cache: Cache) -> int:
    """Of all tensors that the cache holds."""
    tensors = [x for layer in cache.layers for x in (getattr(layer, "state", None) or (layer.keys, layer.values))]
    return sum(x.numel() * x.element_size() for x in tensors)


@torch.no_grad()
def measure(models: dict, context: int, batch_size: int, rounds: int) -> dict:
    """Milliseconds a step and MiB of the cache, of each form."""
    ids = torch.randint(1, 1000, (batch_size, context), generator=torch.Generator().manual_seed(0))
    room = context + rounds + 4
    forms = {
        "flow": (models["flow"], StaticCache(config=models["flow"].config, max_cache_len=room)),
        "softmax_dynamic": (models["sdpa"], DynamicCache(config=models["sdpa"].config)),
        "softmax_static": (models["sdpa"], StaticCache(config=models["sdpa"].config, max_cache_len=room)),
    }
    times: dict[str, list[float]] = {name: [] for name in forms}
    for model, cache in forms.values():
        model(ids, past_key_values=cache, logits_to_keep=1)
    for index in range(rounds + 3):
        for name, (model, cache) in forms.items():
            start = time.perf_counter()
            model(ids[:, :1], past_key_values=cache)
            if index >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    row = {"context": context, "batch_size": batch_size}
    row |= {f"{name}_ms": round(statistics.median(measured), 2) for name, measured in times.items()}
    row["ratio"] = round(min(row["softmax_dynamic_ms"], row["softmax_static_ms"]) / row["flow_ms"], 2)
    return row | {f"{name}_mib": round(num_bytes(cache) / 2**20, 2) for name, (_, cache) in forms.items()}


def markdown(machine: str, rows: list[dict]) -> str:
    lines = ["# Decoding: flow state beside keys and values", "", machine, ""]
    heads = ["context", "batch size", "flow, ms a token", "softmax, dynamic cache", "softmax, static cache"]
    heads += ["faster softmax / flow", "flow cache, MiB", "dynamic cache", "static cache"]
    lines += ["| " + " | ".join(heads) + " |", "|" + "--:|" * len(heads)]
    lines += ["| " + " | ".join(str(value) for value in row.values()) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    longest = max(arguments.contexts) + arguments.rounds + 8
    models = {name: make_model(name, longest) for name in TWINS}
    rows = []
    for context in arguments.contexts:
        for batch_size in arguments.batch_sizes:
            rows.append(measure(models, context, batch_size, arguments.rounds))
            print(rows[-1], flush=True)
    names = processor_names()
    machine = f"{names[0]}, {arguments.threads} threads of {len(names)} cores, torch {torch.__version__}; "
    machine += "4 layers of width 256, 4 heads, float32."
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "flow_decoding.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))
    (arguments.output_dir / "flow_decoding.md").write_text(markdown(machine, rows))


if __name__ == "__main__":
    main()
