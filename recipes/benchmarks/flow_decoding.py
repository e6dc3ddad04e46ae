"""Time of one generated token by context: the constant flow state beside the softmax twin's cache of keys and values.

    python recipes/benchmarks/flow_decoding.py --contexts 256 4096 16384 --batch_sizes 1 8 64
    python recipes/benchmarks/flow_decoding.py --compile     # a step of either as one graph too

Both models have 4 layers of width 256 and 4 heads, in float32. Keys and values of the context are random numbers, and
the flow state, whose size does not depend on it, is that of a short one; then tokens are taken one at a time, in turn.
Medians are reported, and the MiB of each cache. The twin has transformers' dynamic cache, which copies keys and values
as it grows, and the static one; the ratio is to the faster. A cache above `--max_cache_mib` is not built: its size
alone is told. Writes `flow_decoding.json` and `flow_decoding.md`.
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
FORMS = ("flow", "flow_compiled", "softmax_dynamic", "softmax_static", "softmax_compiled")


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


def num_bytes_of_keys(context: int, batch_size: int) -> int:
    """Of the keys and values of a context, in float32."""
    return 2 * 4 * SIZES["num_hidden_layers"] * batch_size * context * SIZES["hidden_size"]


def fill(model: FlowformerForCausalLM, cache: Cache, context: int, batch_size: int) -> None:
    """As a pass over the context leaves it, in size."""
    if model.config._attn_implementation == "flow":
        model(torch.ones(batch_size, min(context, 64), dtype=torch.long), past_key_values=cache, logits_to_keep=1)
        return
    heads = SIZES["num_attention_heads"]
    for layer in range(SIZES["num_hidden_layers"]):
        keys = torch.randn(batch_size, heads, context, SIZES["hidden_size"] // heads)
        cache.update(keys, keys.clone(), layer)


@torch.no_grad()
def measure(models: dict, context: int, batch_size: int, arguments: argparse.Namespace) -> dict:
    """Milliseconds a step and MiB of the cache, of each form; None for what would not fit."""
    torch.compiler.reset()  # graphs of other sizes count towards a limit
    ids = torch.randint(1, 1000, (batch_size, 1), generator=torch.Generator().manual_seed(0))
    room, flow, softmax = context + arguments.rounds + 4, models["flow"], models["sdpa"]
    forms = {"flow": (flow, flow.forward, StaticCache(config=flow.config, max_cache_len=room))}
    if num_bytes_of_keys(room, batch_size) / 2**20 <= arguments.max_cache_mib:
        forms["softmax_dynamic"] = (softmax, softmax.forward, DynamicCache(config=softmax.config))
        forms["softmax_static"] = (softmax, softmax.forward, StaticCache(config=softmax.config, max_cache_len=room))
    for name, plain in (("flow_compiled", "flow"), ("softmax_compiled", "softmax_static")):
        if arguments.compile and plain in forms:
            model, step, _ = forms[plain]
            cache = StaticCache(config=model.config, max_cache_len=room)
            forms[name] = (model, torch.compile(step, fullgraph=True, dynamic=False), cache)
    times: dict[str, list[float]] = {name: [] for name in forms}
    for model, _, cache in forms.values():
        fill(model, cache, context, batch_size)
    for index in range(arguments.rounds + 3):
        for name, (_, step, cache) in forms.items():
            start = time.perf_counter()
            step(ids, past_key_values=cache)
            if index >= 3:
                times[name].append(1e3 * (time.perf_counter() - start))
    medians = {name: round(statistics.median(measured), 2) for name, measured in times.items()}
    row = {"context": context, "batch_size": batch_size} | {f"{name}_ms": medians.get(name) for name in FORMS}
    fastest = {kind: [ms for name, ms in medians.items() if name.startswith(kind)] for kind in ("flow", "softmax")}
    row["ratio"] = round(min(fastest["softmax"]) / min(fastest["flow"]), 2) if fastest["softmax"] else None
    row["flow_mib"] = round(num_bytes(forms["flow"][2]) / 2**20, 2)
    return row | {"softmax_mib": round(num_bytes_of_keys(room, batch_size) / 2**20, 2)}


def markdown(machine: str, rows: list[dict]) -> str:
    lines = ["# Decoding: flow state beside keys and values", "", machine, ""]
    heads = ["context", "batch size", "flow, ms a token", "flow, one graph"]
    heads += ["softmax, dynamic cache", "softmax, static cache", "softmax, one graph"]
    heads += ["faster softmax / faster flow", "flow cache, MiB", "keys and values, MiB"]
    lines += ["| " + " | ".join(heads) + " |", "|" + "--:|" * len(heads)]
    cells = [["—" if value is None else str(value) for value in row.values()] for row in rows]
    lines += ["| " + " | ".join(row) + " |" for row in cells]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--contexts", type=int, nargs="+", default=[256, 4096])
    parser.add_argument("--batch_sizes", type=int, nargs="+", default=[1, 8])
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--compile", action="store_true", help="also a step of flow as one compiled graph")
    parser.add_argument("--max_cache_mib", type=int, default=3072, help="of keys and values that are built")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    longest = max(arguments.contexts) + arguments.rounds + 8
    models = {name: make_model(name, longest) for name in TWINS}
    rows = []
    for context in arguments.contexts:
        for batch_size in arguments.batch_sizes:
            rows.append(measure(models, context, batch_size, arguments))
            print(rows[-1], flush=True)
    names = processor_names()
    machine = f"{names[0]}, {arguments.threads} threads of {len(names)} cores, torch {torch.__version__}; "
    machine += "4 layers of width 256, 4 heads, float32."
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "flow_decoding.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))
    (arguments.output_dir / "flow_decoding.md").write_text(markdown(machine, rows))


if __name__ == "__main__":
    main()
