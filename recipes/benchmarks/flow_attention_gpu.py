"""Causal flow attention on a GPU: correctness in bfloat16, then speed beside softmax and linear attention.

    python recipes/benchmarks/flow_attention_gpu.py          # under 5 minutes, needs CUDA and fla-core

Batch 1, 16 heads of 128, bfloat16, 1,024 to 65,536 tokens. Forms: flow attention through fla's kernels and through
PyTorch's operations, SDPA's flash backend, fla's linear attention, and a copy of q, k, v and o, which no attention can
beat. Median milliseconds of a forward pass, and of one with its backward pass; then microseconds of a decoding step
after each context. Writes `flow_attention_gpu.json` and `flow_attention_gpu.md` with the machine's name.
"""

import argparse
import importlib
import importlib.util
import json
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.nn.functional import scaled_dot_product_attention

from hf_transfer.models.flowformer.flow_attention import flow_attention

HEADS, HEAD_DIM = 16, 128
LENGTHS = [1024 * 2**power for power in range(7)]
CHECKED_LENGTH, TOLERANCE = 2048, 2e-2
SECONDS, MOST_ROUNDS = 1.0, 50


def make_inputs(length: int, dtype: torch.dtype = torch.bfloat16) -> list[Tensor]:
    """Query, key, value and the output's gradient."""
    generator = torch.Generator("cuda").manual_seed(0)
    shape = 1, HEADS, length, HEAD_DIM
    tensors = [torch.randn(shape, generator=generator, device="cuda", dtype=dtype) for _ in range(4)]
    return [*(x.requires_grad_() for x in tensors[:3]), tensors[3]]


def flash(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    with sdpa_kernel(SDPBackend.FLASH_ATTENTION):
        return scaled_dot_product_attention(query, key, value, is_causal=True)


def linear(query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    """fla's linear attention, whose tensors are [B, L, H, D]."""
    run = importlib.import_module("fla.ops.linear_attn").chunk_linear_attn
    return run(*(x.transpose(1, 2) for x in (query, key, value)))[0].transpose(1, 2)


FORMS: dict[str, Callable[[Tensor, Tensor, Tensor], Tensor]] = {
    "flow, fla's kernels": lambda q, k, v: flow_attention(q, k, v, causal=True, kernel="fla"),
    "flow, PyTorch": lambda q, k, v: flow_attention(q, k, v, causal=True, kernel="torch"),
    "softmax, flash": flash,
    "linear, fla": linear,
}


def median_ms(run: Callable[[], object]) -> float:
    """Median milliseconds by CUDA events, after three warming rounds."""
    for _ in range(3):
        run()
    torch.cuda.synchronize()
    times, begin = [], time.perf_counter()
    while len(times) < 5 or (len(times) < MOST_ROUNDS and time.perf_counter() - begin < SECONDS):
        start, stop = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        run()
        stop.record()
        torch.cuda.synchronize()
        times.append(start.elapsed_time(stop))
    return round(statistics.median(times), 4)


def check() -> dict[str, float]:
    """Relative errors of the kernels in bfloat16 against PyTorch's operations in float32 on the same values.

    Raises:
        SystemExit: one is above the tolerance: times of wrong results would mean nothing.
    """
    *leaves, gradient = make_inputs(CHECKED_LENGTH)
    exact = [x.detach().float().requires_grad_() for x in leaves]
    output = FORMS["flow, fla's kernels"](*leaves)
    expected = FORMS["flow, PyTorch"](*exact)
    found = [output, *torch.autograd.grad(output, leaves, gradient)]
    right = [expected, *torch.autograd.grad(expected, exact, gradient.float())]
    names = ("output", "query", "key", "value")
    errors = {name: ((x.float() - y).norm() / y.norm()).item() for name, x, y in zip(names, found, right)}
    if max(errors.values()) > TOLERANCE:
        raise SystemExit(f"The kernels are wrong in bfloat16, relative errors: {errors}.")
    return errors


def time_length(length: int) -> list[dict]:
    """One row a form, and the copy."""
    *leaves, gradient = make_inputs(length)
    rows = []
    for name, form in FORMS.items():
        with torch.no_grad():
            forward = median_ms(lambda form=form: form(*leaves))
        both = median_ms(lambda form=form: torch.autograd.grad(form(*leaves), leaves, gradient))
        rows.append({"form": name, "length": length, "forward_ms": forward, "forward_backward_ms": both})
    copies = [torch.empty_like(gradient) for _ in range(4)]
    sources = [*(x.detach() for x in leaves), gradient]
    copy_ms = median_ms(lambda: [target.copy_(source) for target, source in zip(copies, sources)])
    # reads and writes four tensors where attention reads three and writes one
    return [*rows, {"form": "copy of q, k, v, o", "length": length, "forward_ms": copy_ms / 2}]


@torch.no_grad()
def time_decoding(length: int) -> dict[str, float]:
    """Microseconds of one token after `length` others."""
    query, key, value, _ = make_inputs(length)
    _, state = flow_attention(query, key, value, causal=True, return_state=True, kernel="fla")
    token = [x[:, :, -1:] for x in (query, key, value)]
    runs = {
        kernel: lambda kernel=kernel: flow_attention(*token, causal=True, state=state, kernel=kernel)
        for kernel in ("fla", "torch")
    }
    runs["softmax"] = lambda: scaled_dot_product_attention(token[0], key, value)
    return {f"{name} after {length}": round(1e3 * median_ms(run), 1) for name, run in runs.items()}


def markdown(report: dict) -> str:
    lines = ["# Causal flow attention on a GPU", "", report["machine"], ""]
    lines += ["| form | length | forward ms | forward + backward ms |", "|---|--:|--:|--:|"]
    for row in report["rows"]:
        cells = row["form"], row["length"], row["forward_ms"], row.get("forward_backward_ms", "")
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    lines += ["", "Microseconds of a decoding step:", ""]
    lines += [f"- {name}: {value}" for name, value in report["decoding_us"].items()]
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    if not torch.cuda.is_available():
        sys.exit("This benchmark needs a CUDA device, and there is none: flow_attention.py measures on the CPU.")
    if importlib.util.find_spec("fla") is None:
        sys.exit("This benchmark needs fla-core: pip install 'hf-transferability[gpu]'.")
    report = {"machine": f"{torch.cuda.get_device_name()}, torch {torch.__version__}; batch 1, bfloat16."}
    report["relative_errors"] = check()
    print(report, flush=True)
    report["rows"] = []
    for length in LENGTHS:
        report["rows"] += time_length(length)
        print(report["rows"][-len(FORMS) - 1 :], flush=True)
    report["decoding_us"] = {k: v for length in (1024, 16_384, 65_536) for k, v in time_decoding(length).items()}
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "flow_attention_gpu.json").write_text(json.dumps(report, indent=2) + "\n")
    (arguments.output_dir / "flow_attention_gpu.md").write_text(markdown(report))
    print(markdown(report))


if __name__ == "__main__":
    main()
