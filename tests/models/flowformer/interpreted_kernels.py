"""fla's kernels in Triton's interpreter on a CPU, against PyTorch's operations: output, gradients and state.

    TRITON_INTERPRET=1 python tests/models/flowformer/interpreted_kernels.py

Needs fla-core 0.6 and Triton 3.9. Two things an interpreter lacks are put in their place: timing of configurations, of
which any will do, and loop variables with the methods of tensors.
"""

import builtins
from collections.abc import Iterator

import fla.ops.common.chunk_h
import numpy as np
import torch
import triton.language as tl
from triton.runtime.autotuner import Autotuner
from triton.runtime.interpreter import TensorHandle

from hf_transfer.models.flowformer.flow_attention import flow_attention

TOLERANCE = 5e-6


def as_tensors(*bounds) -> Iterator[tl.tensor]:
    numbers = (int(bound.handle.data.item()) if isinstance(bound, tl.tensor) else int(bound) for bound in bounds)
    for number in builtins.range(*numbers):
        yield tl.tensor(TensorHandle(np.array([number], dtype=np.int32), tl.int32), tl.int32)


def results(kernel: str, length: int, mask: torch.Tensor | None) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(length)
    inputs = [torch.randn(2, 2, length, 16, generator=generator).requires_grad_() for _ in range(3)]
    output, state = flow_attention(*inputs, causal=True, key_mask=mask, return_state=True, kernel=kernel)
    weights = torch.randn(output.shape, generator=generator)
    grads = torch.autograd.grad((output * weights).sum() + state.memory.sin().sum(), inputs)
    step, _ = flow_attention(
        *(x[:, :, -1:] for x in inputs), causal=True, state=state, return_state=True, kernel=kernel
    )
    return {"output": output, **dict(zip(("query", "key", "value"), grads)), "memory": state.memory, "step": step}


def main() -> None:
    Autotuner._bench = lambda self, *args, config, **kwargs: [1.0, 1.0, 1.0]
    fla.ops.common.chunk_h.range = as_tensors
    for length in (5, 64, 130):
        for mask in (None, torch.rand(2, length, generator=torch.Generator().manual_seed(1)) > 0.3):
            found, expected = (results(kernel, length, mask) for kernel in ("fla", "torch"))
            for name, tensor in expected.items():
                error = ((found[name] - tensor).norm() / tensor.norm().clamp(min=1e-12)).item()
                print(f"{length} tokens, {'full' if mask is None else 'masked'}, {name}: {error:.1e}")
                if error > TOLERANCE:
                    raise SystemExit(f"{name} differs by {error}")


if __name__ == "__main__":
    main()
