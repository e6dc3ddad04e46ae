"""Flow, full and sliding-window attention in one model: each layer is right, cached, packed, padded and saved."""

import pytest
import torch
from transformers import AutoConfig, DynamicCache, StaticCache
from transformers.generation import CompileConfig

from hf_transfer.models.flowformer import (
    FlowformerConfig,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedLM,
    FlowformerForTimeSeriesClassification,
)
from hf_transfer.models.flowformer.attention_flowformer import eager_attention_forward
from hf_transfer.models.flowformer.flow_attention import naive_flow_attention
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

WINDOW, LENGTH = 4, 12
MIXED = ["flow_attention", "sliding_attention", "full_attention", "flow_attention"]
STACKS = {
    "mixed": MIXED,
    "flow-first": ["flow_attention", "full_attention"],
    "full-first": ["full_attention", "flow_attention"],
    "windows": ["sliding_attention", "flow_attention"],
    "softmax": ["sliding_attention", "full_attention"],
    "flow": ["flow_attention", "flow_attention"],
}
EVERY_STACK = pytest.mark.parametrize("layer_types", STACKS.values(), ids=list(STACKS))


def model_of(layer_types, head=FlowformerForCausalLM, modality="text", **fields):
    torch.manual_seed(0)
    window = WINDOW if "sliding_attention" in layer_types else None
    fields = {"linear_initializer_range": 0.5, "initializer_range": 0.5, "tie_word_embeddings": False, **fields}
    fields |= {"layer_types": layer_types, "sliding_window": window, "num_hidden_layers": len(layer_types)}
    return head(tiny_config(modality, **fields)).eval()


def ids_of(batch=2, length=LENGTH):
    return torch.randint(1, 31, (batch, length), generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("causal", [False, True])
def test_each_layer_computes_its_attention(causal):
    """Recorded queries, keys and values of each layer against the plain formulas."""
    head = FlowformerForCausalLM if causal else FlowformerForMaskedLM
    model, seen = model_of(MIXED, head), {}

    def record(name):
        return lambda module, inputs, output: seen.__setitem__(name, output)

    attentions = [layer.attention for layer in model.flowformer.layers]
    for index, attention in enumerate(attentions):
        for name in ("q_proj", "k_proj", "v_proj"):
            getattr(attention, name).register_forward_hook(record((index, name)))
        attention.o_proj.register_forward_pre_hook(lambda _, inputs, index=index: seen.__setitem__(index, inputs[0]))
    with torch.no_grad():
        model(ids_of())
    place = torch.arange(LENGTH)
    distance = place[:, None] - place
    allowed = (distance >= 0) if causal else torch.ones(LENGTH, LENGTH, dtype=torch.bool)
    for index, (attention, kind) in enumerate(zip(attentions, MIXED, strict=True)):
        query, key, value = (
            seen[index, name].unflatten(-1, (2, 8)).transpose(1, 2) for name in ("q_proj", "k_proj", "v_proj")
        )
        if kind == "flow_attention":
            expected = naive_flow_attention(query, key, value, causal=causal).transpose(1, 2)
        else:
            # transformers counts the token itself where windows look back alone
            near = distance.abs() < WINDOW + (not causal) if kind == "sliding_attention" else allowed
            mask = torch.zeros(LENGTH, LENGTH).masked_fill(~(allowed & near), float("-inf"))
            expected, _ = eager_attention_forward(attention, query, key, value, mask)
        torch.testing.assert_close(seen[index], expected.flatten(2), atol=1e-5, rtol=1e-4)


@EVERY_STACK
@pytest.mark.parametrize("cache_class", [DynamicCache, StaticCache])
def test_cached_steps_equal_the_whole_sequence(layer_types, cache_class):
    model, ids = model_of(layer_types), ids_of()
    options = {} if cache_class is DynamicCache else {"max_cache_len": 20}
    with torch.no_grad():
        whole = model(ids, use_cache=False).logits
        for start in (1, 7):
            cache = cache_class(config=model.config, **options)
            parts = [ids[:, :start], *ids[:, start:].split(1, dim=1)]
            logits = torch.cat([model(part, past_key_values=cache).logits for part in parts], dim=1)
            torch.testing.assert_close(logits, whole, atol=1e-4, rtol=1e-4)


@EVERY_STACK
@pytest.mark.parametrize("options", [{}, {"cache_implementation": "static"}, {"num_beams": 2}], ids=str)
def test_generation_equals_that_without_a_cache(layer_types, options):
    model = model_of(layer_types, position_embedding_type="rotary")
    ids, mask = ids_of(), torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :5] = 0
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0, "do_sample": False}
    cached = model.generate(ids, attention_mask=mask, **settings, **options)
    options = {name: value for name, value in options.items() if name != "cache_implementation"}
    assert torch.equal(cached, model.generate(ids, attention_mask=mask, use_cache=False, **settings, **options))
    alone = model.generate(ids[:1, 5:], use_cache=False, **settings, **options)
    assert torch.equal(cached[0, LENGTH:], alone[0, LENGTH - 5 :])


@pytest.mark.slow
@pytest.mark.parametrize(("name", "padded"), [("flow-first", True), ("flow", False), ("flow", True)])
def test_a_decoding_step_is_one_graph(name, padded):
    """With transformers' own window layers there are two: before and after the window is full."""
    model, ids = model_of(STACKS[name]), ids_of()
    mask = torch.ones(2, LENGTH, dtype=torch.long)
    mask[0, :5] = 1 - int(padded)
    torch._dynamo.reset()
    graphs = []

    def run_as_it_is(graph, inputs):
        graphs.append(graph)
        return graph.forward

    compile_config = CompileConfig(backend=run_as_it_is, fullgraph=True, mode=None)
    compile_config._compile_all_devices = True
    settings = {"max_new_tokens": 6, "min_new_tokens": 6, "pad_token_id": 0, "do_sample": False}
    compiled = model.generate(
        ids, attention_mask=mask, cache_implementation="static", compile_config=compile_config, **settings
    )
    assert torch.equal(compiled, model.generate(ids, attention_mask=mask, use_cache=False, **settings))
    assert len(graphs) == 1
    torch._dynamo.reset()


@EVERY_STACK
def test_checkpointing_and_saving_change_nothing(layer_types, tmp_path):
    model, twin, ids = model_of(layer_types), model_of(layer_types).train(), ids_of()
    twin.activation_checkpointing_enable()
    losses = [either(ids, labels=ids, use_cache=False).loss for either in (model, twin)]
    for loss in losses:
        loss.backward()
    torch.testing.assert_close(*losses)
    for weight, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(weight.grad, other.grad)
    model.save_pretrained(tmp_path)
    loaded = FlowformerForCausalLM.from_pretrained(tmp_path)
    assert loaded.config.layer_types == layer_types
    assert AutoConfig.from_pretrained(tmp_path).to_dict()["layer_types"] == layer_types
    torch.testing.assert_close(loaded(ids).logits, model(ids).logits)


@pytest.mark.parametrize("causal", [False, True])
def test_packed_documents_stay_apart(causal):
    model = model_of(MIXED, FlowformerForCausalLM if causal else FlowformerForMaskedLM)
    ids, cut = ids_of(1), 5
    positions = torch.cat((torch.arange(cut), torch.arange(LENGTH - cut)))[None]
    with torch.no_grad():
        packed = model(ids, position_ids=positions).logits
        alone = torch.cat([model(part).logits for part in (ids[:, :cut], ids[:, cut:])], dim=1)
    torch.testing.assert_close(packed, alone, atol=1e-5, rtol=1e-4)


def test_implementations_agree_and_choose_the_softmax_layers_alone():
    ids, logits = ids_of(), []
    for implementation in (None, "flow", "sdpa", "eager"):
        model = model_of(MIXED, attn_implementation=implementation)
        assert model.config._attn_implementation == ("eager" if implementation == "eager" else "sdpa")
        assert model.config.layer_types == MIXED
        logits.append(model(ids).logits)
    for other in logits[1:]:
        torch.testing.assert_close(other, logits[0], atol=1e-4, rtol=1e-4)
    with pytest.raises(ValueError, match="All `layer_types` are 'flow_attention'"):
        model_of(STACKS["flow"], attn_implementation="sdpa")


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
@pytest.mark.parametrize("kind", ["flow_attention", "full_attention"])
def test_grouped_keys_and_values_are_those_repeated(kind, implementation):
    """A model of 4 query heads over 2 of keys and values against one whose heads repeat those weights."""
    types = [kind, "full_attention"]
    grouped = model_of(types, attn_implementation=implementation, num_attention_heads=4, num_key_value_heads=2)
    plain = model_of(types, attn_implementation=implementation, num_attention_heads=4)
    weights = grouped.state_dict()
    for name, weight in weights.items():
        if "k_proj" in name or "v_proj" in name:
            assert weight.shape[0] == 8
            weights[name] = weight.unflatten(0, (2, 4)).repeat_interleave(2, dim=0).flatten(0, 1)
    plain.load_state_dict(weights)
    ids, cache = ids_of(), DynamicCache(config=grouped.config)
    with torch.no_grad():
        torch.testing.assert_close(grouped(ids).logits, plain(ids).logits, atol=1e-5, rtol=1e-4)
        steps = [grouped(part, past_key_values=cache).logits for part in ids.split(5, dim=1)]
        torch.testing.assert_close(torch.cat(steps, dim=1), grouped(ids).logits, atol=1e-4, rtol=1e-4)


def test_other_modalities_mix_too():
    types = ["flow_attention", "full_attention"]
    image = model_of(types, FlowformerForImageClassification, "image")
    series = model_of(STACKS["windows"], FlowformerForTimeSeriesClassification, "time_series")
    for model in (image, series):
        plain = type(model)(tiny_config(model.config.modality, attn_implementation="sdpa")).eval()
        plain.load_state_dict(model.state_dict())
        inputs = tiny_inputs(model.config)
        assert model(**inputs).logits.isfinite().all()
        assert not torch.allclose(model(**inputs).logits, plain(**inputs).logits)


def test_the_configuration_says_what_was_given():
    assert "layer_types" not in FlowformerConfig().to_dict()
    config = tiny_config(layer_types=STACKS["full-first"])
    assert FlowformerConfig(**config.to_dict()).layer_types == STACKS["full-first"]
