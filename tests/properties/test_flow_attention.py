"""Flow attention for any shape, mask and cut."""

from __future__ import annotations

from itertools import pairwise

import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from hf_transfer.models.flowformer.flow_attention import flow_attention, flow_attention_step, naive_flow_attention
from tests.properties import drawn

MAPS = ("sigmoid", "elu", "relu", "shifted_relu")
SIZES = st.integers(1, 9)


@st.composite
def problems(draw, causal: bool | None = None) -> tuple[dict[str, Tensor], dict]:
    """Query, key and value of any size in float64, and options."""
    is_causal = draw(st.booleans()) if causal is None else causal
    batch, heads, width, own = draw(st.integers(1, 3)), draw(st.integers(1, 2)), draw(SIZES), draw(SIZES)
    tokens = draw(SIZES)
    sources = tokens if is_causal else draw(SIZES)
    generator = torch.Generator().manual_seed(draw(st.integers(0, 2**32 - 1)))
    scale = draw(st.sampled_from([0.1, 1.0, 30.0]))
    shapes = {"query": (tokens, width), "key": (sources, width), "value": (sources, own)}
    made = {
        name: scale * torch.randn(batch, heads, *shape, generator=generator, dtype=torch.float64)
        for name, shape in shapes.items()
    }
    options = {
        "causal": is_causal,
        "feature_map": draw(st.sampled_from(MAPS)),
        "competition_clamp": draw(st.sampled_from([1.0, 5.0, 30.0])),
    }
    return made, options


def close(found: Tensor, expected: Tensor) -> None:
    torch.testing.assert_close(found, expected, rtol=1e-7, atol=1e-9)


@drawn
@given(problems(), st.integers(1, 7))
def test_the_naive_form_whatever_the_chunks(problem, chunk_size):
    tensors, options = problem
    found = flow_attention(**tensors, **options, chunk_size=chunk_size)
    assert found.isfinite().all()
    close(found, naive_flow_attention(**tensors, **options))


@drawn
@given(problems(causal=True), st.data())
def test_the_past_does_not_know_the_future(problem, data):
    tensors, options = problem
    tokens = tensors["query"].shape[2]
    seen = data.draw(st.integers(1, tokens))
    past = {name: tensor[:, :, :seen] for name, tensor in tensors.items()}
    close(flow_attention(**tensors, **options)[:, :, :seen], flow_attention(**past, **options))


@drawn
@given(problems(causal=True), st.data())
def test_a_sequence_may_be_read_in_parts_and_token_by_token(problem, data):
    tensors, options = problem
    tokens = tensors["query"].shape[2]
    cuts = [0, *sorted(data.draw(st.sets(st.integers(1, tokens), max_size=3)) | {tokens})]
    state, parts = None, []
    for start, end in pairwise(cuts):
        part = {name: tensor[:, :, start:end] for name, tensor in tensors.items()}
        output, state = flow_attention(**part, **options, state=state, return_state=True)
        parts.append(output)
    whole, last = flow_attention(**tensors, **options, return_state=True)
    close(torch.cat(parts, dim=2), whole)
    for found, expected in zip(state, last):
        close(found, expected)
    steps = {name: value for name, value in options.items() if name != "causal"}
    first = {name: tensor[:, :, :1] for name, tensor in tensors.items()}
    output, state = flow_attention(**first, **options, return_state=True)
    for place in range(1, tokens):
        token = {name: tensor[:, :, place : place + 1] for name, tensor in tensors.items()}
        output, state = flow_attention_step(**token, state=state, **steps)
        close(output, whole[:, :, place : place + 1])


@drawn
@given(problems(causal=False), st.randoms(use_true_random=False))
def test_the_order_of_sources_does_not_matter_and_that_of_queries_is_kept(problem, random):
    tensors, options = problem
    places = list(range(tensors["key"].shape[2]))
    random.shuffle(places)
    moved = {**tensors, "key": tensors["key"][:, :, places], "value": tensors["value"][:, :, places]}
    close(flow_attention(**moved, **options), flow_attention(**tensors, **options))
    asked = list(range(tensors["query"].shape[2]))
    random.shuffle(asked)
    moved = {**tensors, "query": tensors["query"][:, :, asked]}
    close(flow_attention(**moved, **options), flow_attention(**tensors, **options)[:, :, asked])


@drawn
@given(problems(), st.integers(1, 5), st.booleans())
def test_padding_changes_nothing(problem, padding, is_behind):
    """Masked tokens of any value behind or before a row, which give zeros themselves."""
    tensors, options = problem
    junk = {name: torch.full_like(tensor[:, :, :1], 7.0) for name, tensor in tensors.items()}
    padded, masks = {}, {}
    for name, tensor in tensors.items():
        pads = [junk[name]] * padding
        padded[name] = torch.cat([tensor, *pads] if is_behind else [*pads, tensor], dim=2)
        keep = torch.ones(tensor.shape[0], tensor.shape[2], dtype=torch.bool)
        pad = torch.zeros(tensor.shape[0], padding, dtype=torch.bool)
        masks[name] = torch.cat([keep, pad] if is_behind else [pad, keep], dim=1)
    found = flow_attention(**padded, **options, key_mask=masks["key"], query_mask=masks["query"])
    tokens = tensors["query"].shape[2]
    own = found[:, :, :tokens] if is_behind else found[:, :, padding:]
    rest = found[:, :, tokens:] if is_behind else found[:, :, :padding]
    close(own, flow_attention(**tensors, **options))
    assert not rest.any()


@drawn
@given(problems(), st.lists(SIZES, min_size=1, max_size=4), st.integers(0, 2**32 - 1))
def test_packed_documents_are_read_alone(problem, lengths, seed):
    tensors, options = problem
    generator = torch.Generator().manual_seed(seed)
    documents = [
        {
            name: torch.randn(1, tensor.shape[1], length, tensor.shape[3], generator=generator, dtype=torch.float64)
            for name, tensor in tensors.items()
        }
        for length in lengths
    ]
    packed = {name: torch.cat([document[name] for document in documents], dim=2) for name in tensors}
    bounds = torch.tensor([0, *lengths]).cumsum(0).int()
    expected = torch.cat([flow_attention(**document, **options) for document in documents], dim=2)
    close(flow_attention(**packed, **options, cu_seqlens=bounds), expected)
