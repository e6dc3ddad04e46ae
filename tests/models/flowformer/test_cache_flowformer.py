"""The cache layer: constant bytes, row operations that beams and batches need, clear refusals."""

import pytest
import torch
from transformers import DynamicCache, StaticCache
from transformers.exporters import DynamoConfig, DynamoExporter

from hf_transfer.models.flowformer import FlowAttentionCacheLayer, FlowformerForCausalLM, cache_flowformer
from hf_transfer.models.flowformer.cache_flowformer import StaticFlowAttentionCacheLayer
from tests.marks import slow
from tests.models.flowformer.tiny import tiny_config, tiny_inputs


@pytest.fixture(scope="module")
def model():
    torch.manual_seed(0)
    return FlowformerForCausalLM(tiny_config(max_position_embeddings=512)).eval()


def cache_after(model, ids) -> DynamicCache:
    with torch.no_grad():
        return model(ids, use_cache=True).past_key_values


def test_caches_build_the_layer_by_its_name(model):
    made = {DynamicCache(config=model.config): FlowAttentionCacheLayer}
    made[StaticCache(config=model.config, max_cache_len=9)] = StaticFlowAttentionCacheLayer
    for cache, layer_class in made.items():
        assert [type(layer) for layer in cache.layers] == [layer_class] * 2
        assert cache.is_compileable == (layer_class is StaticFlowAttentionCacheLayer)
        assert cache.get_seq_length() == 0
        assert cache.get_max_length() == -1


def test_the_state_does_not_grow_with_the_context(model):
    sizes = set()
    for length in (1, 8, 300):
        cache = cache_after(model, tiny_inputs(model.config, length=length)["input_ids"])
        assert cache.get_seq_length() == length
        sizes.add(sum(layer.state.num_bytes for layer in cache.layers))
    assert len(sizes) == 1


def test_rows_reorder_repeat_and_select(model):
    ids = tiny_inputs(model.config, batch=3)["input_ids"]
    rows = torch.tensor([2, 0, 0])
    operations = {
        "reorder_cache": (rows, rows),
        "batch_select_indices": (rows, rows),
        "batch_repeat_interleave": (2, torch.tensor([0, 0, 1, 1, 2, 2])),
    }
    for name, (argument, expected_rows) in operations.items():
        cache = cache_after(model, ids)
        getattr(cache, name)(argument)
        expected = cache_after(model, ids[expected_rows])
        for layer, other in zip(cache.layers, expected.layers):
            torch.testing.assert_close(tuple(layer.state), tuple(other.state), msg=name)


def test_a_static_cache_keeps_its_addresses(model):
    ids = tiny_inputs(model.config, batch=3)["input_ids"]
    cache, dynamic = StaticCache(config=model.config, max_cache_len=20), cache_after(model, ids)
    with torch.no_grad():
        model(ids, past_key_values=cache)
        addresses = [tensor.data_ptr() for layer in cache.layers for tensor in (*layer.state, layer.num_seen)]
        model(ids[:, :1], past_key_values=cache)
        model(ids[:, :1], past_key_values=dynamic)
        rows = torch.tensor([2, 0, 0])
        cache.reorder_cache(rows)
        dynamic.reorder_cache(rows)
    for layer, other in zip(cache.layers, dynamic.layers, strict=True):
        torch.testing.assert_close(tuple(layer.state), tuple(other.state))
        assert layer.get_seq_length() == other.get_seq_length() == 8
    cache.reset()
    assert cache.get_seq_length() == 0
    with torch.no_grad():
        logits = model(ids, past_key_values=cache).logits
        torch.testing.assert_close(logits, model(ids, use_cache=False).logits)
    found = [tensor.data_ptr() for layer in cache.layers for tensor in (*layer.state, layer.num_seen)]
    assert found == addresses
    cache.batch_repeat_interleave(2)
    assert cache.layers[0].state.num_tokens.tolist() == [7] * 6
    cache.batch_select_indices(torch.tensor([4]))
    torch.testing.assert_close(cache.layers[0].state.memory, cache_after(model, ids[2:]).layers[0].state.memory)


def test_reset_starts_over(model):
    ids = tiny_inputs(model.config)["input_ids"]
    cache = cache_after(model, ids)
    cache.reset()
    assert cache.get_seq_length() == 0
    with torch.no_grad():
        again = model(ids, past_key_values=cache).logits
        torch.testing.assert_close(again, model(ids, use_cache=False).logits)


def test_offload_and_prefetch_keep_the_state(model):
    layer = cache_after(model, tiny_inputs(model.config)["input_ids"]).layers[0]
    before = tuple(layer.state)
    layer.offload()
    layer.prefetch()
    torch.testing.assert_close(tuple(layer.state), before)


def test_what_a_running_sum_cannot_do_is_refused(model):
    layer = cache_after(model, tiny_inputs(model.config)["input_ids"]).layers[0]
    assert not layer.is_croppable
    with pytest.raises(NotImplementedError, match="cannot be removed"):
        layer.crop(-1)
    with pytest.raises(NotImplementedError, match="no keys and values"):
        layer.update(torch.ones(1, 1, 1, 1), torch.ones(1, 1, 1, 1))


def test_the_cache_is_the_implementations_own(model):
    ids = tiny_inputs(model.config)["input_ids"]
    with pytest.raises(ValueError, match="continues from a flow state"):
        model(ids, past_key_values=DynamicCache())
    with pytest.raises(NotImplementedError, match="no keys and values"):
        twin = FlowformerForCausalLM(tiny_config(attn_implementation="sdpa")).eval()
        twin(ids, past_key_values=DynamicCache(config=model.config))


def test_a_bidirectional_model_has_no_cache():
    from hf_transfer.models.flowformer import FlowformerModel

    model = FlowformerModel(tiny_config())
    assert model(**tiny_inputs(model.config), use_cache=True).past_key_values is None
    with pytest.raises(ValueError, match="causal"):
        model(**tiny_inputs(model.config), past_key_values=DynamicCache(config=model.config))


def test_a_version_without_tables_of_cache_layers_is_told(monkeypatch, caplog):
    for name in cache_flowformer.LAYER_TABLES:
        monkeypatch.delattr(cache_flowformer.cache_utils, name)
    monkeypatch.delattr(torch._dynamo, "mark_static_address")
    cache_flowformer.logger.warning_once.cache_clear()
    cache_flowformer.register_cache_layers()
    assert all(f"no `cache_utils.{name}`" in caplog.text for name in cache_flowformer.LAYER_TABLES)
    layer = cache_flowformer.StaticFlowAttentionCacheLayer()
    layer.lazy_initialization(torch.zeros(1, 2, 3, 4), torch.zeros(1, 2, 3, 4))
    assert layer.state.memory.shape == (1, 2, 4, 4)


@pytest.mark.parametrize("layer_types", [None, slow(["full_attention", "flow_attention"])], ids=["flow", "hybrid"])
def test_transformers_exporters_decode_at_any_length(layer_types):
    torch.manual_seed(0)
    model = FlowformerForCausalLM(tiny_config(is_causal=True, layer_types=layer_types)).eval()
    prompt = {"input_ids": torch.randint(5, 20, (2, 9))}
    exported = DynamoExporter().export_for_generation(model, prompt, DynamoConfig(dynamic=True))
    for rows, length in ((3, 12), (2, 1), (1, 2)):
        tokens = torch.randint(5, 20, (rows, length + 5))
        expected = model(input_ids=tokens).logits
        cache = DynamicCache(config=model.config)
        given = {"input_ids": tokens[:, :length], "position_ids": torch.arange(length).expand(rows, -1)}
        found = exported.runners["prefill"](**given, past_key_values=cache)
        torch.testing.assert_close(found.logits[:, -1], expected[:, length - 1])
        for place in range(length, length + 5):
            assert found.past_key_values.get_seq_length() == place
            given = {"input_ids": tokens[:, [place]], "position_ids": torch.full((rows, 1), place)}
            found = exported.runners["decode"](**given, past_key_values=found.past_key_values)
            torch.testing.assert_close(found.logits[:, -1], expected[:, place])


def test_a_cache_that_was_cropped_in_part_is_refused():
    model = FlowformerForCausalLM(tiny_config(is_causal=True, layer_types=["full_attention", "flow_attention"])).eval()
    tokens = torch.randint(5, 20, (2, 6))
    cache = model(input_ids=tokens, use_cache=True).past_key_values
    with pytest.raises(NotImplementedError, match="cannot be removed"):
        cache.crop(-2)
    with pytest.raises(ValueError, match=r"have seen \[4, 6\] tokens: .* cannot be cropped"):
        model(input_ids=tokens, past_key_values=cache)


def test_rows_of_a_static_cache_are_selected_by_a_mask_too():
    model = FlowformerForCausalLM(tiny_config(is_causal=True)).eval()
    cache = StaticCache(config=model.config, max_cache_len=8)
    model(input_ids=torch.randint(5, 20, (3, 4)), past_key_values=cache)
    kept = torch.tensor([True, False, True])
    expected = [tensor[kept] for tensor in cache.layers[0].state]
    cache.batch_select_indices(kept)
    torch.testing.assert_close(list(cache.layers[0].state), expected)
