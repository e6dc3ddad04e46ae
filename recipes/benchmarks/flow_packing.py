"""Time of flow attention on documents packed into one row beside the same documents padded to rows of one length.

    python recipes/benchmarks/flow_packing.py --threads 1

8 heads of 64, float32, forward and backward, tensors as a model holds them (token by token). Four kinds of batches:
equal lengths, where there is nothing to gain, uniform lengths, and short and long ones with log-uniform lengths. Every
round times each form once; medians are reported. Writes `flow_packing.json` and `flow_packing.md`.
"""

import argparse
import json
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import torch
from machine import processor_names
from torch import Tensor

from hf_transfer.models.flowformer.flow_attention import flow_attention
from hf_transfer.models.flowformer.flow_packing import Packing

HEADS, HEAD_DIM = 8, 64


def batches() -> dict[str, list[int]]:
    """Numbers of tokens of the documents of each batch."""
    generator = torch.Generator().manual_seed(1)
    logs = torch.rand(24, generator=generator)
    return {
        "16 documents of 256": [256] * 16,
        "32 documents of 16 to 256, uniform": torch.randint(16, 257, (32,), generator=generator).tolist(),
        "16 documents of 32 to 2,048, log-uniform": (32 * 64 ** logs[:16]).long().tolist(),
        "8 documents of 512 to 4,096, log-uniform": (512 * 8 ** logs[16:]).long().tolist(),
    }


def forms(lengths: list[int]) -> dict[str, Callable[[bool], tuple[Tensor, list[Tensor]]]]:
    """Functions of `causal` that give the output and the tensors it depends on."""
    generator = torch.Generator().manual_seed(0)
    shape = len(lengths), max(lengths), HEADS, HEAD_DIM
    mask = torch.arange(shape[1]) < torch.tensor(lengths)[:, None]
    rows = [torch.randn(shape, generator=generator) for _ in range(3)]
    packed = [x[mask][None].requires_grad_() for x in rows]
    rows = [x.requires_grad_() for x in rows]
    packing = Packing.of_lengths(lengths, None, mask.device)

    def run_padded(causal: bool):
        query, key, value = (x.transpose(1, 2).contiguous() for x in rows)
        return flow_attention(query, key, value, causal=causal, key_mask=mask, query_mask=mask).transpose(1, 2), rows

    def run_packed(causal: bool):
        query, key, value = (x.transpose(1, 2) for x in packed)
        return flow_attention(query, key, value, causal=causal, cu_seqlens=packing).transpose(1, 2), packed

    return {"padded": run_padded, "packed": run_packed}


def measure(name: str, lengths: list[int], causal: bool, rounds: int) -> dict:
    """Milliseconds of a forward and backward pass of either form."""
    made = forms(lengths)
    times: dict[str, list[float]] = {form: [] for form in made}
    for index in range(rounds + 1):
        for form, run in made.items():
            start = time.perf_counter()
            output, leaves = run(causal)
            torch.autograd.grad(output.sum(), leaves)
            if index:
                times[form].append(1e3 * (time.perf_counter() - start))
    padded, packed = (statistics.median(times[form]) for form in ("padded", "packed"))
    real = sum(lengths) / (len(lengths) * max(lengths))
    row = {"batch": name, "causal": causal, "real_share": round(real, 2), "padded_ms": round(padded, 1)}
    return {**row, "packed_ms": round(packed, 1), "ratio": round(padded / packed, 2)}


def markdown(machine: str, rows: list[dict]) -> str:
    lines = ["# Flow attention: packed beside padded", "", machine, ""]
    lines += ["| batch | form | real tokens of the padded batch | padded ms | packed ms | padded / packed |"]
    lines += ["|---|---|--:|--:|--:|--:|"]
    for row in rows:
        form = "causal" if row["causal"] else "bidirectional"
        cells = row["batch"], form, row["real_share"], row["padded_ms"], row["packed_ms"], row["ratio"]
        lines.append("| " + " | ".join(str(cell) for cell in cells) + " |")
    return "\n".join(lines) + "\n"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--output_dir", type=Path, default=Path(__file__).parent / "results")
    arguments = parser.parse_args()
    torch.set_num_threads(arguments.threads)
    rows = []
    for name, lengths in batches().items():
        for causal in (True, False):
            rows.append(measure(name, lengths, causal, arguments.rounds))
            print(rows[-1], flush=True)
    names = processor_names()
    machine = f"{names[0]}, {arguments.threads} threads of {len(names)} cores, torch {torch.__version__}."
    arguments.output_dir.mkdir(parents=True, exist_ok=True)
    (arguments.output_dir / "flow_packing.json").write_text(json.dumps({"machine": machine, "rows": rows}, indent=2))
    (arguments.output_dir / "flow_packing.md").write_text(markdown(machine, rows))


if __name__ == "__main__":
    main()
