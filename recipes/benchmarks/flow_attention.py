"""Speed and memory of flow attention beside the published formulation and PyTorch's softmax attention, in one run.

    python recipes/benchmarks/flow_attention.py                      # 512 to 65,536 tokens
    python recipes/benchmarks/flow_attention.py --max_length 4096

Batch 1, 8 heads of 64: float32 on the CPU and, where there is one, bfloat16 on CUDA. Every round times each form once,
so that a busy machine slows all of them; medians are reported. Peak memory is what a forward and backward pass adds to
a fresh process. Writes `flow_attention.json` and `flow_attention.md` into the output folder.

To expect of the causal form, forward and backward: at 4,096 tokens 50 times the published one and 5 times SDPA,
at 16,384 10 times SDPA, twice the time for twice the tokens; decoding costs the same at any context.
"""

import argparse
import importlib.util
import json
import multiprocessing
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import growth_mib, processor_names, resident_mib, restart_peak
from torch import Tensor
from torch.nn import functional

from hf_transfer.models.flowformer.flow_attention import flow_attention, flow_attention_step

HEADS, HEAD_DIM = 8, 64
DECODE_CONTEXTS = (256, 16_384)


def published_causal(query: Tensor, key: Tensor, value: Tensor, eps: float = 1e-6) -> Tensor:
    """The causal formulation of the paper: cumulative sums over L x D x D outer products."""
    n = torch.arange(1, query.shape[2] + 1, device=query.device, dtype=query.dtype)
    a, b = query.sigmoid(), key.sigmoid()
    sinks = n / ((a + eps) * (b.cumsum(2) + eps)).sum(-1)
    sources = n / ((b + eps) * (a.cumsum(2) + eps)).sum(-1)
    kept = ((a + eps) * ((b * sources[..., None]).cumsum(2) + eps)).sum(-1) / n
    sent = ((b + eps) * ((a * sinks[..., None]).cumsum(2) + eps)).sum(-1) / n
    strength = sent.clamp(-1, 1).exp()
    competed = value * (strength / strength.cumsum(-1) * n)[..., None]
    memory = torch.einsum("bhld,bhlm->bhldm", b, competed).cumsum(2)
    return torch.einsum("bhld,bhldm->bhlm", a * (sinks / n)[..., None], memory) * kept.sigmoid()[..., None]


def fla_causal(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """flash-linear-attention's plain linear attention, whose tensors are [B, L, H, D]."""
    from fla.ops.linear_attn import chunk_linear_attn

    output, _ = chunk_linear_attn(*(x.transpose(1, 2) for x in (query, key, value)))
    return output.transpose(1, 2)


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "published causal": published_causal,
    "sdpa causal": lambda q, k, v: functional.scaled_dot_product_attention(q, k, v, is_causal=True),
    "flow causal": lambda q, k, v: flow_attention(q, k, v, causal=True),
    "sdpa": functional.scaled_dot_product_attention,
    "flow": flow_attention,
}
# L x D x D outer products and L x L scores stop being worth the wait on a CPU
CPU_MAX_LENGTH = {"published causal": 4096, "sdpa causal": 16_384, "sdpa": 16_384}


def make_inputs(length: int, device: str) -> list[Tensor]:
    """Query, key, value and the output's gradient."""
    dtype, generator = torch.float32 if device == "cpu" else torch.bfloat16, torch.Generator().manual_seed(0)
    tensors = [torch.randn(1, HEADS, length, HEAD_DIM, generator=generator).to(device, dtype) for _ in range(4)]
    return [*(x.requires_grad_() for x in tensors[:3]), tensors[3]]


def synchronize(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def time_once(form: Callable, inputs: list[Tensor], device: str) -> tuple[float, float]:
    """Milliseconds of a forward pass without gradients, and of a forward and backward pass."""
    *leaves, gradient = inputs
    times = []
    for backward in (False, True):
        synchronize(device)
        start = time.perf_counter()
        with torch.set_grad_enabled(backward):
            output = form(*leaves)
        if backward:
            torch.autograd.grad(output, leaves, gradient)
        synchronize(device)
        times.append(1e3 * (time.perf_counter() - start))
    return times[0], times[1]


def time_length(length: int, device: str, forms: dict[str, Callable], seconds: float) -> list[dict]:
    """One row a form: medians over rounds that run every form once, for `seconds` but at least three rounds."""
    inputs = make_inputs(length, device)
    times: dict[str, list[tuple[float, float]]] = {name: [] for name in forms}
    for form in forms.values():
        time_once(form, inputs, device)
    start = time.perf_counter()
    while len(next(iter(times.values()))) < 3 or time.perf_counter() - start < seconds:
        for name, form in forms.items():
            times[name].append(time_once(form, inputs, device))
    rows = []
    for name, measured in times.items():
        forward, both = (statistics.median(column) for column in zip(*measured, strict=True))
        row = {"device": device, "form": name, "length": length, "rounds": len(measured)}
        rows.append({**row, "forward_ms": round(forward, 3), "forward_backward_ms": round(both, 3)})
    return rows


def peak_mib(name: str, length: int, device: str) -> float:
    """MiB that a forward and backward pass adds at its peak, in this process; call it in a fresh one."""
    *leaves, gradient = make_inputs(length, device)
    # libraries load their kernels at first use: that is not the pass's memory
    warm = make_inputs(64, device)
    time_once(FORMS[name], warm, device)
    if device == "cuda":
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
        torch.autograd.grad(FORMS[name](*leaves), leaves, gradient)
        return (torch.cuda.max_memory_allocated() - before) / 2**20
    before = resident_mib("VmRSS")
    restart_peak()
    torch.autograd.grad(FORMS[name](*leaves), leaves, gradient)
    return growth_mib(before)


def measure_peak(name: str, length: int, device: str, threads: int) -> float:
    """`peak_mib` in a process of its own: a fork of this one, which has computed nothing, or a new one for a GPU."""
    if device == "cpu":
        with multiprocessing.get_context("fork").Pool(1) as pool:
            return pool.apply(peak_mib, (name, length, device))
    command = [sys.executable, __file__, "--threads", str(threads), "--peak", device, name, str(length)]
    return float(subprocess.run(command, check=True, capture_output=True, text=True).stdout)


def time_decoding(device: str, rounds: int = 300) -> dict[str, float]:
    """Microseconds of one decoding step after each context, by step from the state and by SDPA over its keys."""
    with torch.no_grad():
        states, caches, times = {}, {}, {}
        for context in DECODE_CONTEXTS:
            query, key, value, _ = make_inputs(context, device)
            states[context] = flow_attention(query, key, value, causal=True, return_state=True)[1]
            caches[context] = key, value
        token = make_inputs(1, device)[:3]
        for _ in range(rounds):
            for context in DECODE_CONTEXTS:
                runs = {
                    "flow": lambda context=context: flow_attention_step(*token, states[context]),
                    "sdpa": lambda context=context: functional.scaled_dot_product_attention(
                        token[0], *caches[context]
                    ),
                }
                for name, run in runs.items():
                    synchronize(device)
                    start = time.perf_counter()
                    run()
                    synchronize(device)
                    times.setdefault(f"{name} {context}", []).append(1e6 * (time.perf_counter() - start))
    return {name: round(statistics.median(measured), 1) for name, measured in times.items()}


def find(rows: list[dict], device: str, form: str, length: int, field: str = "forward_backward_ms") -> float | None:
    matching = (r.get(field) for r in rows if (r["device"], r["form"], r["length"]) == (device, form, length))
    return next(matching, None)


def compare(rows: list[dict], device: str) -> dict[str, float]:
    """How many times less than each baseline ours takes, forward and backward, and what doubling the length costs."""
    ratios = {}
    for length in sorted({row["length"] for row in rows if row["device"] == device}):
        for ours, baseline in (
            ("flow causal", "published causal"),
            ("flow causal", "sdpa causal"),
            ("flow causal", "fla causal"),
            ("flow", "sdpa"),
        ):
            for field, label in (("forward_backward_ms", "time"), ("peak_mib", "memory")):
                mine, theirs = (find(rows, device, form, length, field) for form in (ours, baseline))
                if mine and theirs:
                    ratios[f"{label} of {baseline} / {ours} at {length}"] = round(theirs / mine, 2)
        half, whole = (find(rows, device, "flow causal", x) for x in (length // 2, length))
        if half and whole:
            ratios[f"flow causal from {length // 2} to {length}"] = round(whole / half, 2)
    return ratios


def markdown(report: dict) -> str:
    """The report as Markdown: one row a form and length, then the ratios."""
    lines = ["# Flow attention: speed and memory", "", report["machine"], ""]
    lines += [
        "| device | form | length | forward ms | forward + backward ms | peak MiB |",
        "|---|---|--:|--:|--:|--:|",
    ]
    for row in report["rows"]:
        cells = (row["device"], row["form"], row["length"], row["forward_ms"], row["forward_backward_ms"])
        lines.append("| " + " | ".join(str(cell) for cell in (*cells, row["peak_mib"])) + " |")
    for device, times in report["decoding_us"].items():
        lines += ["", f"Decoding, microseconds a token on {device}, after each context:", ""]
        lines += [f"- {name}: {value}" for name, value in times.items()]
    for device, ratios in report["ratios"].items():
        lines += ["", f"Ratios on {device} (above 1: ours is faster or smaller; doubling: at best 2):", ""]
        lines += [f"- {name}: {value}" for name, value in ratios.items()]
    return "\n".join(lines) + "\n"


def describe_machine(threads: int) -> str:
    names = processor_names()
    accelerator = torch.cuda.get_device_name() if torch.cuda.is_available() else "no GPU"
    settings = f"batch 1, {HEADS} heads of {HEAD_DIM}; float32 on cpu, bfloat16 on cuda"
    return (
        f"{names[0]}, {threads} threads of {len(names)} cores, {accelerator}, torch {torch.__version__}; {settings}."
    )


def forms_at(length: int, device: str) -> dict[str, Callable]:
    """What is worth measuring at a length on a device."""
    limits = CPU_MAX_LENGTH if device == "cpu" else {"published causal": 4096}
    elsewhere = {"fla causal"} if device == "cpu" else set()
    return {name: form for name, form in FORMS.items() if length <= limits.get(name, length) and name not in elsewhere}


def run(arguments: argparse.Namespace) -> dict:
    """Measure all that the arguments ask for: memory, in processes made before this one computes, and then time."""
    if torch.cuda.is_available() and importlib.util.find_spec("fla"):
        FORMS["fla causal"] = fla_causal
    lengths = [512 * 2**power for power in range(24) if 512 * 2**power <= arguments.max_length]
    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    cases = [(device, length) for device in devices for length in lengths]
    peaks = {}
    for device, length in cases:
        for name in forms_at(length, device):
            peaks[device, length, name] = round(measure_peak(name, length, device, arguments.threads), 1)
            print(f"{device}, {name} at {length}: {peaks[device, length, name]} MiB", flush=True)
    rows = []
    for device, length in cases:
        for row in time_length(length, device, forms_at(length, device), arguments.seconds):
            rows.append({**row, "peak_mib": peaks[device, length, row["form"]]})
            print(rows[-1], flush=True)
    decoding = {device: time_decoding(device) for device in devices}
    ratios = {device: compare(rows, device) for device in devices}
    return {"machine": describe_machine(arguments.threads), "rows": rows, "decoding_us": decoding, "ratios": ratios}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--max_length", type=int, default=65_536, help="longest sequence, from 512 in doublings")
    parser.add_argument("--seconds", type=float, default=5.0, help="measuring time of each length")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    parser.add_argument("--peak", nargs=3, metavar=("DEVICE", "FORM", "LENGTH"), help="print one peak in MiB and stop")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    if arguments.peak:
        device, name, length = arguments.peak
        if name == "fla causal":
            FORMS[name] = fla_causal
        print(peak_mib(name, int(length), device))
        return
    report = run(arguments)
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "flow_attention.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.output_dir / "flow_attention.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
