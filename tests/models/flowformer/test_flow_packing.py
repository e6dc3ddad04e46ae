"""Packed documents under every form of flow attention: what each gives in a row of its own, forward and gradient."""

from itertools import pairwise

import pytest
import torch

from hf_transfer.models.flowformer import flow_packing
from hf_transfer.models.flowformer.flow_attention import flow_attention, flow_attention_step, naive_flow_attention
from hf_transfer.models.flowformer.flow_packing import Packing
from hf_transfer.models.flowformer.flow_state import FlowState
from tests.models.flowformer.test_flow_attention import BOTH_FORMS, gradients, make_inputs

# documents that begin inside chunks of 8, at their bounds and several in one
LENGTHS = (5, 1, 2, 13, 3, 16, 21, 1, 3)
BOUNDS = torch.tensor([0, *torch.tensor(LENGTHS).cumsum(0).tolist()])
TOTAL = int(BOUNDS[-1])


@pytest.fixture(params=[256, 0], ids=["few-groups", "many-groups"])
def grouping(request, monkeypatch):
    monkeypatch.setattr(flow_packing, "FREE_PADDING", request.param)


def alone(function, query, key, value, mask=None, **options):
    """Each document by itself, one after the other."""
    outputs = []
    for start, stop in pairwise(BOUNDS.tolist()):
        part = slice(start, stop)
        masks = {} if mask is None else {"key_mask": mask[:, part], "query_mask": mask[:, part]}
        outputs.append(function(*(x[:, :, part] for x in (query, key, value)), **masks, **options))
    return torch.cat(outputs, dim=2)


@BOTH_FORMS
@pytest.mark.parametrize("masked", [False, True], ids=["full", "masked"])
@pytest.mark.parametrize("function", [flow_attention, naive_flow_attention])
def test_packed_equals_separate_documents(function, masked, causal, grouping):
    inputs = make_inputs(TOTAL, batch_size=1)
    mask = torch.rand(1, TOTAL, generator=torch.Generator().manual_seed(3)) > 0.3 if masked else None
    options = {"causal": causal, "chunk_size": 8} if function is flow_attention else {"causal": causal}
    expected = gradients(lambda *qkv: alone(naive_flow_attention, *qkv, mask=mask, causal=causal), inputs)
    options |= {"key_mask": mask, "query_mask": mask, "cu_seqlens": BOUNDS}
    found = gradients(lambda *qkv: function(*qkv, **options), inputs)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)


def test_states_of_documents_continue(grouping):
    """Documents cut in two: the second halves go on from the states of the first."""
    inputs = make_inputs(TOTAL, batch_size=1)
    whole = flow_attention(*inputs, causal=True, cu_seqlens=BOUNDS)
    cuts = [(start, start + (stop - start + 1) // 2, stop) for start, stop in pairwise(BOUNDS.tolist())]
    first = torch.cat([torch.arange(start, cut) for start, cut, _ in cuts])
    bounds = torch.tensor([0, *torch.tensor([cut - start for start, cut, _ in cuts]).cumsum(0).tolist()])
    output, state = flow_attention(
        *(x[:, :, first] for x in inputs), causal=True, cu_seqlens=bounds, return_state=True
    )
    torch.testing.assert_close(output, whole[:, :, first], rtol=1e-10, atol=1e-10)
    assert state.num_tokens.tolist() == [cut - start for start, cut, _ in cuts]
    longer = [row for row, (_, cut, stop) in enumerate(cuts) if stop > cut]
    second = torch.cat([torch.arange(cuts[row][1], cuts[row][2]) for row in longer])
    bounds = torch.tensor([0, *torch.tensor([cuts[row][2] - cuts[row][1] for row in longer]).cumsum(0).tolist()])
    state = state.select_rows(torch.tensor(longer))
    output = flow_attention(*(x[:, :, second] for x in inputs), causal=True, cu_seqlens=bounds, state=state)
    torch.testing.assert_close(output, whole[:, :, second], rtol=1e-10, atol=1e-10)


def test_one_token_of_each_document_is_a_step():
    query, key, value = make_inputs(4, batch_size=1)
    state = FlowState(*(torch.rand_like(x) if x.is_floating_point() else x + 3 for x in FlowState.zeros(4, 3, 8, 5)))
    packed = flow_attention(query, key, value, causal=True, cu_seqlens=torch.arange(5), state=state, return_state=True)
    rows = [x.transpose(0, 2) for x in (query, key, value)]
    output, after = flow_attention_step(*rows, state)
    torch.testing.assert_close(packed, (output.transpose(0, 2), after))


@BOTH_FORMS
def test_second_derivatives_and_transforms(causal):
    inputs, bounds = make_inputs(4, key_dim=2, value_dim=1, batch_size=1, heads=1), torch.tensor([0, 1, 4])

    def packed(*qkv):
        return flow_attention(*qkv, causal=causal, cu_seqlens=bounds, chunk_size=2)

    assert torch.autograd.gradgradcheck(packed, inputs, fast_mode=True)
    detached = [x.detach() for x in inputs]
    (expected,) = torch.autograd.grad(packed(*inputs).sin().sum(), inputs[0])
    torch.testing.assert_close(torch.func.grad(lambda *qkv: packed(*qkv).sin().sum())(*detached), expected)


def test_groups_hold_little_padding():
    lengths = torch.randint(1, 400, (200,), generator=torch.Generator().manual_seed(0)).tolist()
    packing = Packing.of_lengths(lengths, None, torch.device("cpu"))
    places = sum(rows * width for rows, width in packing.shapes)
    assert places < 1.2 * sum(lengths)
    assert len(packing.shapes) < 30
    assert sorted(packing.rows.tolist()) == list(range(200))
    alike = Packing.of_lengths([7, 7, 7], None, torch.device("cpu"))
    assert alike.shapes == ((3, 7),)
    assert alike.mask is None


def test_places_of_two_rows():
    documents = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    real = torch.tensor([[1, 1, 0, 1], [1, 1, 1, 1]], dtype=torch.bool)
    packing = Packing.of(documents, real)
    assert packing.shapes == ((4, 3),)
    assert packing.masks()[0].long().tolist() == [[1, 1, 1], [1, 1, 0], [0, 1, 0], [1, 0, 0]]
    states = torch.randn(2, 3, 4, 5)
    torch.testing.assert_close(packing.pack(packing.unpack(states), 2), states)


@pytest.mark.parametrize(
    ("bounds", "batch_size", "message"),
    [
        ([0, 3, 5], 1, "rise from 0 to 6"),
        ([0, 4, 3, 6], 1, "rise from 0 to 6"),
        ([0, 3, 3, 6], 1, "rise from 0 to 6"),
        ([1, 6], 1, "rise from 0 to 6"),
        ([0.0, 6.0], 1, "whole numbers"),
        ([0, 6], 2, "one row"),
    ],
)
def test_bounds_that_do_not_fit_are_refused(bounds, batch_size, message):
    inputs = make_inputs(6, batch_size=batch_size)
    for function in (flow_attention, naive_flow_attention):
        with pytest.raises(ValueError, match=message):
            function(*inputs, cu_seqlens=torch.tensor(bounds))
