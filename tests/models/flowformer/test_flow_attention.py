"""Every form of flow attention against the definition, forward and gradient; the definition against known cases."""

import shutil

import pytest
import torch
from torch import Tensor

from hf_transfer.models.flowformer import flow_attention_bidirectional, flow_attention_causal
from hf_transfer.models.flowformer.flow_attention import flow_attention, flow_attention_step, naive_flow_attention
from hf_transfer.models.flowformer.flow_options import FEATURE_MAPS
from hf_transfer.models.flowformer.flow_state import FlowState
from tests.marks import slow

LENGTHS = (1, 7, 63, 64, 65, 300)
BOTH_FORMS = pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])


def make_inputs(length, keys=None, key_dim=8, value_dim=5, batch_size=2, heads=3, dtype=torch.float64, seed=0):
    generator = torch.Generator().manual_seed(seed)
    shapes = (length, key_dim), (keys or length, key_dim), (keys or length, value_dim)
    return [torch.randn(batch_size, heads, *s, generator=generator, dtype=dtype).requires_grad_() for s in shapes]


def make_mask(length, batch_size=2, seed=1):
    """Holes anywhere in row 0, nothing but padding in the last row."""
    mask = torch.rand(batch_size, length, generator=torch.Generator().manual_seed(seed)) > 0.3
    mask[-1] = False
    return mask


def gradients(function, inputs, seed=2) -> tuple[Tensor, ...]:
    """The output and the gradients of a random projection of it."""
    output = function(*inputs)
    weights = torch.randn(output.shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)
    return output, *torch.autograd.grad((output * weights.to(output.dtype)).sum(), inputs)


def assert_all_close(found, expected, tolerance=1e-10):
    for name, x, y in zip(("output", "query", "key", "value"), found, expected, strict=True):
        torch.testing.assert_close(x, y, rtol=tolerance, atol=tolerance, msg=lambda m, name=name: f"{name}: {m}")


@BOTH_FORMS
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("length", LENGTHS)
def test_equals_the_definition(causal, masked, length):
    inputs, mask = make_inputs(length), make_mask(length) if masked else None
    options = {"causal": causal, "key_mask": mask, "query_mask": mask}
    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, **options), inputs)
    assert_all_close(gradients(lambda q, k, v: flow_attention(q, k, v, **options), inputs), expected)


@BOTH_FORMS
@pytest.mark.parametrize("budget", [1, 400, 1500])
def test_small_blocks_and_segments_change_nothing(causal, budget, monkeypatch):
    monkeypatch.setattr(flow_attention_causal, "CPU_SEGMENT_ELEMENTS", budget)
    monkeypatch.setattr(flow_attention_bidirectional, "CPU_BLOCK_ELEMENTS", budget)
    inputs, mask = make_inputs(75, batch_size=3), make_mask(75, batch_size=3)
    options = {"causal": causal, "key_mask": mask, "query_mask": mask}
    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, **options), inputs)
    assert_all_close(gradients(lambda q, k, v: flow_attention(q, k, v, chunk_size=8, **options), inputs), expected)


@pytest.mark.parametrize("chunk_size", [1, 3])
def test_plain_operations_over_many_chunks(chunk_size):
    # what torch.func, graph compilers and second derivatives follow: all chunks at once
    inputs = make_inputs(200, batch_size=1, heads=1)

    def loss(attention, **options):
        return lambda *qkv: attention(*qkv, causal=True, **options).sin().sum()

    expected = torch.func.grad(loss(naive_flow_attention), argnums=(0, 1, 2))(*inputs)
    found = torch.func.grad(loss(flow_attention, chunk_size=chunk_size), argnums=(0, 1, 2))(*inputs)
    torch.testing.assert_close(found, expected)


@BOTH_FORMS
@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
@pytest.mark.parametrize("clamp, eps", [(1.0, 1e-6), (0.3, 1e-2), (30.0, 1e-3)])
def test_options_equal_the_definition(causal, feature_map, clamp, eps):
    inputs = make_inputs(70)
    options = {"causal": causal, "feature_map": feature_map, "competition_clamp": clamp, "eps": eps}
    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, **options), inputs)
    assert_all_close(gradients(lambda q, k, v: flow_attention(q, k, v, **options), inputs), expected, 1e-8)


@pytest.mark.parametrize("lengths", [(1, 9), (40, 7), (7, 130)])
@pytest.mark.parametrize("masks", [(), ("key_mask",), ("query_mask",), ("key_mask", "query_mask")])
def test_cross_attention_equals_the_definition(lengths, masks):
    inputs = make_inputs(*lengths)
    made = {"key_mask": make_mask(lengths[1]), "query_mask": make_mask(lengths[0], seed=5)}
    options = {name: made[name] for name in masks}
    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, **options), inputs)
    assert_all_close(gradients(lambda q, k, v: flow_attention(q, k, v, **options), inputs), expected)


@BOTH_FORMS
def test_equal_tokens_give_the_mean_of_the_values(causal):
    # all flows are equal: no competition, I^ = S / L, so R = sigmoid(1) times the mean of the values in reach
    query, key, value = make_inputs(9)
    query, key = query[:, :, :1].expand_as(query), key[:, :, :1].expand_as(key)
    mean = value.cumsum(2) / torch.arange(1, 10)[:, None] if causal else value.mean(2, keepdim=True).expand_as(value)
    for function in (naive_flow_attention, flow_attention):
        output = function(query, key, value, causal=causal, eps=1e-12)
        torch.testing.assert_close(output, torch.sigmoid(torch.ones(())).item() * mean, rtol=1e-6, atol=1e-6)


def test_definition_equals_the_published_causal_formulation():
    query, key, value = make_inputs(33)
    eps, n = 1e-6, torch.arange(1.0, 34.0, dtype=torch.float64)
    a, b = query.sigmoid(), key.sigmoid()
    sinks = n / torch.einsum("bhld,bhld->bhl", a + eps, b.cumsum(2) + eps)
    sources = n / torch.einsum("bhld,bhld->bhl", b + eps, a.cumsum(2) + eps)
    kept = torch.einsum("bhld,bhld->bhl", a + eps, (b * sources[..., None]).cumsum(2) + eps) / n
    sent = torch.einsum("bhld,bhld->bhl", b + eps, (a * sinks[..., None]).cumsum(2) + eps) / n
    strength = sent.clamp(-1, 1).exp()
    competed = value * (strength / strength.cumsum(-1) * n)[..., None]
    memory = torch.einsum("bhld,bhlm->bhldm", b, competed).cumsum(2)
    expected = torch.einsum("bhld,bhldm->bhlm", a * (sinks / n)[..., None], memory) * kept.sigmoid()[..., None]
    torch.testing.assert_close(naive_flow_attention(query, key, value, causal=True), expected)


@BOTH_FORMS
def test_gradcheck_and_second_derivatives(causal):
    inputs = make_inputs(5, key_dim=3, value_dim=2, batch_size=1, heads=1)
    assert torch.autograd.gradcheck(lambda q, k, v: flow_attention(q, k, v, causal=causal, chunk_size=2), inputs)
    assert torch.autograd.gradgradcheck(lambda q, k, v: flow_attention(q, k, v, causal=causal, chunk_size=2), inputs)


@BOTH_FORMS
def test_transforms_of_torch_func(causal):
    inputs = [x.detach() for x in make_inputs(11)]

    def loss(query, key, value):
        return flow_attention(query, key, value, causal=causal, chunk_size=4).square().sum()

    leaves = [x.clone().requires_grad_() for x in inputs]
    (expected,) = torch.autograd.grad(loss(*leaves), leaves[0])
    torch.testing.assert_close(torch.func.grad(loss)(*inputs), expected)
    per_row = torch.func.vmap(lambda *row: loss(*(x[None] for x in row)))(*inputs)
    torch.testing.assert_close(per_row.sum(), loss(*inputs))


def test_a_later_token_never_reaches_an_earlier_one():
    query, key, value = (x.detach() for x in make_inputs(140))
    before = flow_attention(query, key, value, causal=True)
    for tensor in (query, key, value):
        tensor[:, :, 100:] += 1
    after = flow_attention(query, key, value, causal=True)
    assert torch.equal(before[:, :, :100], after[:, :, :100])
    assert not torch.allclose(before[:, :, 100:], after[:, :, 100:])


@BOTH_FORMS
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("filling", [0.0, 1e30, float("nan"), float("inf")])
def test_padding_never_changes_a_real_token(causal, side, filling):
    alone = [x.detach() for x in make_inputs(50, batch_size=1)]
    padding = (0, 0, 30, 0) if side == "left" else (0, 0, 0, 30)
    padded = [torch.nn.functional.pad(x, padding, value=filling).requires_grad_() for x in alone]
    mask = torch.nn.functional.pad(torch.ones(1, 50), padding[2:]).bool()
    output, *grads = gradients(
        lambda q, k, v: flow_attention(q, k, v, causal=causal, key_mask=mask, query_mask=mask), padded
    )
    torch.testing.assert_close(output[:, :, mask[0]], flow_attention(*alone, causal=causal))
    for tensor in (output, *grads):
        assert torch.equal(tensor[:, :, ~mask[0]], torch.zeros_like(tensor[:, :, ~mask[0]]))
        assert tensor.isfinite().all()


def test_one_mask_is_enough_when_causal():
    inputs, mask = make_inputs(20), make_mask(20)
    expected = flow_attention(*inputs, causal=True, key_mask=mask, query_mask=mask.clone())
    assert torch.equal(flow_attention(*inputs, causal=True, key_mask=mask), expected)
    assert torch.equal(flow_attention(*inputs, causal=True, query_mask=mask), expected)


@BOTH_FORMS
@pytest.mark.parametrize("dtype, tolerance", [(torch.bfloat16, 2e-2), (torch.float16, 3e-3)])
def test_half_precision_accumulates_in_full(causal, dtype, tolerance):
    inputs = make_inputs(200, dtype=torch.float32)
    low = [x.detach().to(dtype).requires_grad_() for x in inputs]
    exact = [x.detach().double().requires_grad_() for x in low]
    found = gradients(lambda q, k, v: flow_attention(q, k, v, causal=causal), low)
    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, causal=causal), exact)
    for x, y in zip(found, expected, strict=True):
        assert x.dtype == dtype
        assert (x.double() - y).norm() <= tolerance * y.norm()


@BOTH_FORMS
def test_autocast_leaves_the_sums_in_full_precision(causal):
    inputs = make_inputs(100, dtype=torch.float32)
    expected = flow_attention(*inputs, causal=causal)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(flow_attention(*inputs, causal=causal), expected)


@BOTH_FORMS
@pytest.mark.parametrize("feature_map", FEATURE_MAPS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
def test_extreme_inputs_stay_finite(causal, feature_map, dtype):
    huge = torch.finfo(dtype).max
    sizes = [(huge, huge), (-huge, -huge), (huge, -huge), (-huge, huge), (1e-30, 1e-30), (60000, -3)]
    scales = torch.tensor(sizes, dtype=torch.float64)[:, :, None, None, None]
    query, key, value = (x.detach() for x in make_inputs(70, value_dim=8, batch_size=len(sizes), heads=1))
    query, key = query.sigmoid() * scales[:, 0], key.sigmoid() * scales[:, 1]
    inputs = [x.to(dtype).requires_grad_() for x in (query, key, value)]
    masks = (None, torch.zeros(len(sizes), 70, dtype=torch.bool), (torch.arange(70) > 65).expand(len(sizes), -1))
    for mask in masks:
        results = gradients(
            lambda q, k, v, mask=mask: flow_attention(
                q, k, v, causal=causal, feature_map=feature_map, key_mask=mask, query_mask=mask
            ),
            inputs,
        )
        assert all(x.isfinite().all() for x in results)


@BOTH_FORMS
def test_a_row_without_real_tokens_gives_zero(causal):
    inputs, mask = make_inputs(10), torch.zeros(2, 10, dtype=torch.bool)
    for result in gradients(
        lambda q, k, v: flow_attention(q, k, v, causal=causal, key_mask=mask, query_mask=mask), inputs
    ):
        assert torch.equal(result, torch.zeros_like(result))


@BOTH_FORMS
def test_65536_tokens(causal):
    inputs = make_inputs(65_536, key_dim=8, value_dim=8, batch_size=1, heads=1, dtype=torch.float32)
    results = gradients(lambda q, k, v: flow_attention(q, k, v, causal=causal), inputs)
    assert all(x.isfinite().all() for x in results)
    # late outputs average values over thousands of tokens: float32 sums against float64 ones
    exact = flow_attention(*(x.detach().double() for x in inputs), causal=causal)
    torch.testing.assert_close(results[0].double(), exact, rtol=1e-3, atol=1e-5)


@BOTH_FORMS
def test_memory_layout_of_projections_is_kept(causal):
    inputs = [x.detach() for x in make_inputs(70, value_dim=8)]
    by_token = [x.transpose(1, 2).contiguous().transpose(1, 2).requires_grad_() for x in inputs]
    plain = [x.clone().requires_grad_() for x in inputs]
    found = gradients(lambda q, k, v: flow_attention(q, k, v, causal=causal), by_token)
    assert_all_close(found, gradients(lambda q, k, v: flow_attention(q, k, v, causal=causal), plain))
    assert found[0].transpose(1, 2).is_contiguous()


@BOTH_FORMS
def test_graph_used_twice_and_checkpointing(causal):
    inputs = make_inputs(70)
    output = flow_attention(*inputs, causal=causal)
    once = torch.autograd.grad(output.square().sum(), inputs, retain_graph=True)
    twice = torch.autograd.grad(output.square().sum(), inputs)
    again = torch.utils.checkpoint.checkpoint(
        lambda q, k, v: flow_attention(q, k, v, causal=causal), *inputs, use_reentrant=False
    )
    checkpointed = torch.autograd.grad(again.square().sum(), inputs)
    for x, y, z in zip(once, twice, checkpointed, strict=True):
        assert torch.equal(x, y)
        assert torch.equal(x, z)


class LargestTensor(torch.utils._python_dispatch.TorchDispatchMode):
    """Elements of the largest tensor any operation makes."""

    largest = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        for tensor in torch.utils._pytree.tree_leaves(result):
            if isinstance(tensor, Tensor):
                self.largest = max(self.largest, tensor.numel())
        return result


@BOTH_FORMS
def test_no_tensor_grows_faster_than_the_length(causal):
    length, dim = 2048, 32
    inputs = make_inputs(length, key_dim=dim, value_dim=dim, batch_size=1, heads=1, dtype=torch.float32)
    saved = 0

    def keep(tensor: Tensor) -> Tensor:
        nonlocal saved
        saved += tensor.numel()
        return tensor

    with LargestTensor() as mode, torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = flow_attention(*inputs, causal=causal)
        torch.autograd.grad(output.sum(), inputs)
    # pairs within chunks of 64 are 64 numbers a token, twice the dimension, and the three gradients together three
    # times; L x L or L x D x M would be 32 times the pairs
    assert mode.largest <= 96 * length
    assert saved <= 6 * length * dim


# state -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cuts", [(1,), (64,), (10, 11, 90)])
def test_continuing_from_a_state_equals_one_pass(cuts):
    inputs, mask = make_inputs(150), make_mask(150)

    def in_parts(query, key, value):
        state, outputs = None, []
        for start, stop in zip((0, *cuts), (*cuts, 150), strict=True):
            part = [x[:, :, start:stop] for x in (query, key, value)]
            output, state = flow_attention(
                *part, causal=True, key_mask=mask[:, start:stop], state=state, return_state=True
            )
            outputs.append(output)
        assert torch.equal(state.num_tokens, mask.sum(-1))
        return torch.cat(outputs, 2)

    expected = gradients(lambda q, k, v: naive_flow_attention(q, k, v, causal=True, key_mask=mask), inputs)
    assert_all_close(gradients(in_parts, inputs), expected)


def test_gradients_reach_the_first_state_and_leave_the_last():
    prompt, inputs = make_inputs(20, seed=3), make_inputs(70)
    _, state = flow_attention(*prompt, causal=True, return_state=True)
    sums = [x.detach().requires_grad_() for x in state[:6]]

    def run(query, key, value, *sums):
        first = FlowState(*sums, state.num_tokens)
        output, last = flow_attention(query, key, value, causal=True, chunk_size=16, state=first, return_state=True)
        return output, *last[:6]

    def by_steps(query, key, value, *sums):
        current, outputs = FlowState(*sums, state.num_tokens), []
        for t in range(query.shape[2]):
            part = (x[:, :, t : t + 1] for x in (query, key, value))
            output, current = flow_attention_step(*part, current)
            outputs.append(output)
        return torch.cat(outputs, 2), *current[:6]

    found, expected = run(*inputs, *sums), by_steps(*inputs, *sums)
    weights = [torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype) for x in found]
    for x, y in zip(found, expected, strict=True):
        torch.testing.assert_close(x, y)
    grads = [torch.autograd.grad(results, [*inputs, *sums], weights) for results in (found, expected)]
    for x, y in zip(*grads, strict=True):
        torch.testing.assert_close(x, y)


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
def test_steps_equal_the_causal_form_in_float32(masked):
    query, key, value = (x.detach() for x in make_inputs(90, dtype=torch.float32))
    mask = make_mask(90) if masked else torch.ones(2, 90, dtype=torch.bool)
    expected = flow_attention(query, key, value, causal=True, key_mask=mask)
    state = FlowState.zeros(2, 3, 8, 5)
    for t in range(90):
        part = (x[:, :, t : t + 1] for x in (query, key, value))
        output, state = flow_attention_step(*part, state, mask=mask[:, t : t + 1] if masked else None)
        torch.testing.assert_close(output, expected[:, :, t : t + 1], rtol=1e-5, atol=1e-5)


def test_state_rows_and_bytes():
    query, key, value = (x.detach() for x in make_inputs(9, dtype=torch.float32))
    mask = torch.arange(9)[None] < torch.tensor([[4], [9]])
    _, state = flow_attention(query, key, value, causal=True, key_mask=mask, return_state=True)
    assert state.num_tokens.tolist() == [4, 9]
    assert state.num_bytes == FlowState.zeros(2, 3, 8, 5).num_bytes == 4 * 2 * 3 * (4 * 8 + 1 + 8 * 5) + 2 * 8
    swapped, doubled = state.select_rows(torch.tensor([1, 0, 1])), state.repeat_rows(2)
    for before, rows, repeated in zip(state, swapped, doubled, strict=True):
        assert torch.equal(rows, before[[1, 0, 1]])
        assert torch.equal(repeated, before[[0, 0, 1, 1]])


def test_half_precision_state_is_kept_in_full():
    inputs = [x.detach().bfloat16() for x in make_inputs(5, dtype=torch.float32)]
    output, state = flow_attention(*inputs, causal=True, return_state=True)
    step, state = flow_attention_step(*(x[:, :, :1] for x in inputs), state)
    assert output.dtype == step.dtype == torch.bfloat16
    assert state.memory.dtype == torch.float32


# compilers -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", [*(slow(one) for one in ("naive", "step", "bidirectional")), "causal"])
def test_compiles_without_graph_breaks(form):
    inputs, mask = make_inputs(70 if form != "step" else 1), make_mask(70 if form != "step" else 1)
    state = FlowState.zeros(2, 3, 8, 5, dtype=torch.float64)

    def run(query, key, value):
        if form == "naive":
            return naive_flow_attention(query, key, value, causal=True, key_mask=mask)
        if form == "bidirectional":
            return flow_attention(query, key, value, key_mask=mask, query_mask=mask)
        if form == "causal":
            options = {"causal": True, "key_mask": mask, "state": state, "return_state": True}
            return flow_attention(query, key, value, **options)[0]
        return flow_attention_step(query, key, value, state, mask=mask)[0]

    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    assert_all_close(gradients(compiled, inputs), gradients(run, inputs))


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile generates C++ on a CPU")
def test_the_code_torch_compile_generates_is_right():
    inputs = make_inputs(20)
    torch.compiler.reset()
    compiled = torch.compile(flow_attention, fullgraph=True)
    assert_all_close(gradients(compiled, inputs), gradients(flow_attention, inputs))


@pytest.mark.slow
def test_compiled_causal_form_takes_any_length_without_recompiling():
    torch.compiler.reset()
    graphs = []

    def count(graph, example_inputs):
        graphs.append(graph)
        return graph.forward

    compiled = torch.compile(
        lambda q, k, v: flow_attention(q, k, v, causal=True, chunk_size=16),
        fullgraph=True,
        dynamic=True,
        backend=count,
    )
    for length in (40, 33, 64, 100, 203):
        inputs = [x.detach() for x in make_inputs(length)]
        torch.testing.assert_close(compiled(*inputs), naive_flow_attention(*inputs, causal=True))
    assert len(graphs) == 1


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_gradients_under_autocast_are_those_without(causal):
    query, key, value = make_inputs(70)
    output = flow_attention(query, key, value, causal=causal)
    seed = torch.randn_like(output)
    expected = torch.autograd.grad(output, (query, key, value), seed, retain_graph=True)
    with torch.autocast("cpu", torch.bfloat16):
        found = torch.autograd.grad(output, (query, key, value), seed)
    torch.testing.assert_close(found, expected)


@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_exports_with_free_batch_and_length(causal, masked):
    class Attention(torch.nn.Module):
        def forward(self, query, key, value, mask=None):
            return flow_attention(query, key, value, causal=causal, key_mask=mask, query_mask=mask, chunk_size=16)

    def arguments(length, batch_size):
        inputs = [x.detach() for x in make_inputs(length, batch_size=batch_size)]
        return (*inputs, make_mask(length, batch_size)) if masked else tuple(inputs)

    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=4096)
    names = ("query", "key", "value", "mask")
    shapes = {name: {0: batch, 1 if name == "mask" else 2: length} for name in names[: 4 if masked else 3]}
    program = torch.export.export(Attention(), arguments(30, 2), dynamic_shapes=shapes).module()
    # part of a chunk, whole chunks, one token more
    for size in ((45, 3), (7, 1), (64, 2), (65, 2)):
        other = arguments(*size)
        torch.testing.assert_close(program(*other), Attention()(*other))


# errors ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "shapes, options, message",
    [
        (((2, 3, 4, 8), (2, 3, 5, 8), (2, 3, 5, 8)), {"causal": True}, "as many queries as keys"),
        (((2, 3, 4, 8), (2, 3, 4, 6), (2, 3, 4, 8)), {}, "Head dimensions"),
        (((2, 3, 4, 8), (2, 1, 4, 8), (2, 1, 4, 8)), {}, "Batch and head counts"),
        (((2, 3, 4, 8), (2, 3, 4, 8), (2, 3, 5, 8)), {}, "same length"),
        (((2, 3, 0, 8), (2, 3, 0, 8), (2, 3, 0, 8)), {}, "at least one"),
        (((3, 4, 8), (3, 4, 8), (3, 4, 8)), {}, "batch, heads, length, dim"),
        (None, {"key_mask": torch.ones(2, 5, dtype=torch.bool)}, r"`key_mask` should be \(2, 4\), got \(2, 5\)"),
        (None, {"query_mask": torch.ones(2, 4)}, "boolean"),
        (
            None,
            {"feature_map": "softmax"},
            "`feature_map` should be one of sigmoid, elu, relu, shifted_relu",
        ),
        (None, {"competition_clamp": 0.0}, "`competition_clamp`"),
        (None, {"competition_clamp": None}, "`competition_clamp`"),
        (None, {"eps": 0.0}, "`eps`"),
        (None, {"chunk_size": 0}, "`chunk_size`"),
        (None, {"state": FlowState.zeros(2, 3, 8)}, "need `causal=True`"),
        (None, {"return_state": True}, "need `causal=True`"),
        (None, {"causal": True, "state": FlowState.zeros(2, 3, 8, 5)}, "`state` should have a memory of"),
        (
            None,
            {"causal": True, "key_mask": torch.ones(2, 4) > 0, "query_mask": torch.ones(2, 4) < 0},
            "same tokens",
        ),
    ],
)
def test_bad_input_raises(shapes, options, message):
    inputs = [torch.zeros(shape) for shape in shapes or ((2, 3, 4, 8),) * 3]
    with pytest.raises(ValueError, match=message):
        flow_attention(*inputs, **options)


def test_step_takes_one_token():
    with pytest.raises(ValueError, match="one token"):
        flow_attention_step(*(torch.zeros(1, 1, 2, 4) for _ in range(3)), FlowState.zeros(1, 1, 4))
