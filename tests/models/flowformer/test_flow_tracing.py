"""torch.func and forward-mode derivatives: of flow attention against the definition, and through whole models."""

import pytest
import torch
from torch._subclasses import FakeTensorMode
from torch.autograd import forward_ad
from torch.func import functional_call, grad, jacrev, jvp, vmap

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedLM,
    FlowformerForTimeSeriesClassification,
    FlowformerForTokenClassification,
)
from hf_transfer.models.flowformer.flow_attention import flow_attention, naive_flow_attention
from tests.marks import slow
from tests.models.flowformer.tiny import BATCH, HEADS_AND_MODALITIES, LENGTH, head_inputs, tiny_config, tiny_labels

EVERY_FORM = pytest.mark.parametrize(
    "options",
    [
        {"causal": causal, **packed}
        for causal in (False, True)
        for packed in ({}, {"cu_seqlens": torch.tensor([0, 2, 6, 7])})
    ],
    ids=["bidirectional", "bidirectional-packed", "causal", "causal-packed"],
)


def attentions(options):
    inputs = torch.randn(3, 1, 2, 7, 3, dtype=torch.float64, generator=torch.Generator().manual_seed(0)).unbind()
    return [
        lambda *qkv, attend=attend: attend(*qkv, **options) for attend in (flow_attention, naive_flow_attention)
    ], inputs


@EVERY_FORM
def test_forward_mode_equals_that_of_the_definition(options):
    (ours, definition), inputs = attentions(options)
    tangents = tuple(x.cos() for x in inputs)
    _, expected = jvp(definition, inputs, tangents)
    torch.testing.assert_close(jvp(ours, inputs, tangents)[1], expected)
    with forward_ad.dual_level():
        output = ours(*map(forward_ad.make_dual, inputs, tangents))
        torch.testing.assert_close(forward_ad.unpack_dual(output).tangent, expected)


@EVERY_FORM
def test_jacobians_equal_those_of_the_definition(options):
    (ours, definition), inputs = attentions(options)
    expected = jacrev(definition, argnums=(0, 1, 2))(*inputs)
    torch.testing.assert_close(jacrev(ours, argnums=(0, 1, 2))(*inputs), expected)
    leaves = [x.clone().requires_grad_() for x in inputs]
    output = ours(*leaves)
    directions = torch.eye(output.numel(), dtype=output.dtype).view(-1, *output.shape)
    rows = vmap(lambda direction: torch.autograd.grad(output, leaves, direction, retain_graph=True))(directions)
    torch.testing.assert_close([row.reshape(x.shape) for row, x in zip(rows, expected, strict=True)], list(expected))
    batched = torch.autograd.grad(output, leaves, directions, is_grads_batched=True)
    torch.testing.assert_close(
        [row.reshape(x.shape) for row, x in zip(batched, expected, strict=True)], list(expected)
    )
    assert not any(row.requires_grad for row in batched)


@pytest.mark.parametrize("causal", [False, True], ids=["bidirectional", "causal"])
def test_vectorised_second_derivatives_equal_those_of_the_definition(causal):
    functions, inputs = attentions({"causal": causal})
    options = [{"vectorize": True}, {}]
    ours, expected = (
        torch.autograd.functional.hessian(lambda *qkv, f=f: f(*qkv).square().sum(), inputs, **keywords)
        for f, keywords in zip(functions, options, strict=True)
    )
    torch.testing.assert_close([list(row) for row in ours], [list(row) for row in expected])


def test_a_short_sequence_is_not_lengthened_to_a_whole_chunk():
    (ours, _), inputs = attentions({"causal": True, "chunk_size": 64})
    sizes = []
    with (
        torch.autograd.graph.saved_tensors_hooks(lambda x: sizes.append(x.numel()), sizes.index),
        forward_ad.dual_level(),
    ):
        ours(*(x.clone().requires_grad_() for x in inputs))
    heads, length = 2, 7
    assert max(sizes) <= 2 * heads * length * length


@pytest.mark.parametrize(
    ("head", "modality"),
    [
        (FlowformerForCausalLM, "text"),
        (FlowformerForMaskedLM, "text"),
        (FlowformerForImageClassification, "image"),
        (FlowformerForTimeSeriesClassification, "time_series"),
        (DecisionFlowformer, "trajectory"),
    ],
)
def test_gradients_of_each_row_by_vmap(head, modality):
    torch.manual_seed(0)
    model = head(tiny_config(modality, num_hidden_layers=1)).eval()
    inputs = head_inputs(head, model.config)
    inputs |= tiny_labels(head, model.config, inputs)
    weights = {name: weight.detach() for name, weight in model.named_parameters()}

    def loss(weights, row):
        return functional_call(model, weights, (), {name: x[None] for name, x in row.items()})["loss"]

    found = vmap(grad(loss), in_dims=(None, 0))(weights, inputs)
    model(**{name: x[1:] for name, x in inputs.items()})["loss"].backward()
    for name, weight in model.named_parameters():
        torch.testing.assert_close(found[name][1], weight.grad, atol=1e-5, rtol=1e-4, msg=name)


@pytest.mark.parametrize(("head", "modality"), HEADS_AND_MODALITIES)
@pytest.mark.parametrize("place", ["meta", "fake"])
def test_a_step_on_shapes_alone(place, head, modality):
    rotates = {"position_embedding_type": "rotary"} if modality in ("text", "image") else {}
    config = tiny_config(modality, **rotates)
    inputs = head_inputs(head, config)
    inputs |= tiny_labels(head, config, inputs)
    if head in (FlowformerForCausalLM, FlowformerForTimeSeriesClassification, DecisionFlowformer):
        inputs["attention_mask"] = torch.ones(BATCH, LENGTH, dtype=torch.long)
    if place == "meta":
        with torch.device("meta"):
            model = head(config)
        model(**{name: x.to("meta") for name, x in inputs.items()})["loss"].backward()
        return
    with FakeTensorMode() as mode:
        head(config)(**{name: mode.from_tensor(x) for name, x in inputs.items()})["loss"].backward()


@pytest.mark.parametrize("causal", [False, slow(True)], ids=["bidirectional", "causal"])
def test_gradients_of_each_row_with_its_padding(causal):
    torch.manual_seed(0)
    model = FlowformerForTokenClassification(tiny_config("text", is_causal=causal)).eval()
    weights, tokens = dict(model.named_parameters()), torch.randint(5, 20, (2, 9))
    masks = torch.ones(2, 9, dtype=torch.long)
    masks[1, 6:] = 0

    def loss(weights, row, mask):
        logits = functional_call(model, weights, (), {"input_ids": row[None], "attention_mask": mask[None]}).logits
        return (logits * mask[None, :, None]).square().sum()

    found = vmap(grad(loss), (None, 0, 0))(weights, tokens, masks)
    for row in range(2):
        expected = grad(loss)(weights, tokens[row], masks[row])
        torch.testing.assert_close({name: rows[row] for name, rows in found.items()}, expected, atol=1e-5, rtol=1e-4)
