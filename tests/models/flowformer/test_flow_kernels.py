"""The path through fla's kernels: in plain operations, in Triton's interpreter, and refused where it cannot run.

TRITON_INTERPRET=1 has to be set before Triton is imported, so the comparison runs in a process of its own.
"""

import importlib.util
import os
import runpy
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
import torch

from hf_transfer.models.flowformer import flow_kernels
from hf_transfer.models.flowformer.flow_attention import flow_attention
from hf_transfer.models.flowformer.flow_kernels import _plain, kernel_flow_attention, runs_in_kernels
from hf_transfer.models.flowformer.flow_options import FlowOptions
from hf_transfer.models.flowformer.flow_state import FlowState
from tests.models.flowformer.test_flow_attention import gradients, make_inputs, make_mask
from tests.models.flowformer.tiny import tiny_config

HAS_KERNELS = all(importlib.util.find_spec(name) is not None for name in ("fla", "triton"))


class PlainKernels:
    """fla's two functions in plain operations."""

    def __init__(self):
        self.calls = []

    def run(self, name):
        def kernel(a, b, w, scale, initial_state, output_final_state):
            assert (scale, output_final_state) == (1.0, True)
            self.calls.append(name)
            return _plain(a, b, w, initial_state, chunk=7)

        return kernel

    @property
    def chunk_simple_gla(self):
        return self.run("chunk")

    @property
    def fused_recurrent_simple_gla(self):
        return self.run("recurrent")


@pytest.fixture
def kernels(monkeypatch):
    plain = PlainKernels()
    monkeypatch.setattr(flow_kernels.importlib, "import_module", lambda name: plain)
    monkeypatch.setattr(flow_kernels, "find_spec", lambda name: True)
    monkeypatch.setenv("TRITON_INTERPRET", "1")
    return plain


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("length", [1, 20, 70])
def test_equals_the_path_of_plain_operations(kernels, length, masked):
    inputs, mask = make_inputs(length), make_mask(length) if masked else None
    options = {"causal": True, "key_mask": mask, "return_state": True, "competition_clamp": 5.0, "eps": 1e-4}

    def joined(*qkv, kernel):
        output, state = flow_attention(*qkv, kernel=kernel, **options)
        return torch.cat([output.flatten(), *(x.flatten() for x in state)])

    found, expected = (gradients(partial(joined, kernel=name), inputs) for name in ("fla", "torch"))
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert kernels.calls == ["recurrent" if length == 1 else "chunk"]


def test_a_step_continues_from_the_state(kernels):
    inputs = make_inputs(12)
    whole = flow_attention(*inputs, causal=True, kernel="torch")
    _, state = flow_attention(*(x[:, :, :11] for x in inputs), causal=True, kernel="fla", return_state=True)
    last = flow_attention(*(x[:, :, 11:] for x in inputs), causal=True, kernel="fla", state=state)
    torch.testing.assert_close(last, whole[:, :, 11:])
    assert kernels.calls == ["chunk", "recurrent"]


def test_second_derivatives(kernels):
    inputs = make_inputs(5, key_dim=2, value_dim=2, batch_size=1, heads=1)

    def squared_gradients(kernel):
        output = flow_attention(*inputs, causal=True, kernel=kernel)
        first = torch.autograd.grad(output.sin().sum(), inputs, create_graph=True)
        return torch.autograd.grad(sum(x.square().sum() for x in first), inputs)

    torch.testing.assert_close(squared_gradients("fla"), squared_gradients("torch"))


def test_half_precision_keeps_sums_in_float32(kernels):
    query, key, value = (x.detach().bfloat16() for x in make_inputs(40))
    state = FlowState.zeros(2, 3, 8, 5)
    output, after = kernel_flow_attention(query, key, value, None, state, FlowOptions())
    assert (output.dtype, after.memory.dtype) == (torch.bfloat16, torch.float32)
    expected = flow_attention(query.float(), key.float(), value.float(), causal=True)
    torch.testing.assert_close(output.float(), expected, atol=2e-2, rtol=5e-2)


def test_what_cannot_run_is_refused(monkeypatch):
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    query = torch.randn(1, 1, 2, 4)
    assert not runs_in_kernels("auto", query)
    with pytest.raises(ValueError, match="should be one of auto, torch, fla"):
        flow_attention(query, query, query, kernel="cuda")
    monkeypatch.setattr(flow_kernels, "find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install fla-core"):
        flow_attention(query, query, query, causal=True, kernel="fla")
    monkeypatch.setattr(flow_kernels, "find_spec", lambda name: True)
    with pytest.raises(ValueError, match="a CUDA device"):
        flow_attention(query, query, query, causal=True, kernel="fla")
    with pytest.raises(ValueError, match="attn_kernel"):
        tiny_config(attn_kernel="flash")


@pytest.mark.skipif(torch.cuda.is_available(), reason="is about machines without CUDA")
def test_the_benchmark_says_that_it_needs_cuda(monkeypatch):
    script = Path(__file__).parents[3] / "recipes" / "benchmarks" / "flow_attention_gpu.py"
    monkeypatch.setattr(sys, "argv", [str(script)])
    with pytest.raises(SystemExit, match="needs a CUDA device"):
        runpy.run_path(str(script), run_name="__main__")


@pytest.mark.slow
@pytest.mark.skipif(not HAS_KERNELS, reason="needs fla-core and triton")
def test_the_kernels_in_the_interpreter():
    script = Path(__file__).parent / "interpreted_kernels.py"
    environment = {**os.environ, "TRITON_INTERPRET": "1"}
    finished = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env=environment)
    assert finished.returncode == 0, finished.stderr[-3000:]
