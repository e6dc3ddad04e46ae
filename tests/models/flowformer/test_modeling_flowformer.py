"""The backbone: every option builds and learns, padding and layout change nothing, bad input is refused."""

from types import SimpleNamespace

import pytest
import torch
from accelerate import FullyShardedDataParallelPlugin
from torch import nn
from transformers import AutoModel, AutoModelForCausalLM

import hf_transfer  # noqa: F401
from hf_transfer.models.flowformer import FlowformerForSequenceClassification, FlowformerModel, flow_compatibility
from tests.marks import slow
from tests.models.flowformer.tiny import LENGTH, tiny_config, tiny_inputs

MODALITIES = ["text", "image", "time_series", "trajectory"]
SEQUENCES = ["text", "time_series", "trajectory"]
OPTIONS = [
    {"norm_type": norm, "norm_position": place, "position_embedding_type": positions}
    for norm, place, positions in [
        ("layer_norm", "pre", "learned"),
        ("layer_norm", "post", "rotary"),
        ("batch_norm", "post", "learned"),
        ("batch_norm", "pre", "sinusoidal"),
        ("layer_norm", "pre", "none"),
    ]
]


def model_of(modality="text", seed=0, **fields) -> FlowformerModel:
    torch.manual_seed(seed)
    return FlowformerModel(tiny_config(modality, **fields)).eval()


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.parametrize("options", OPTIONS, ids=lambda options: "-".join(options.values()))
def test_every_option_trains_every_weight(modality, options):
    model = model_of(modality, layer_scale_init_value=0.1, drop_path_rate=0.0, **options).train()
    output = model(**tiny_inputs(model.config)).last_hidden_state
    (output * torch.randn_like(output)).sum().backward()
    assert output.isfinite().all()
    still = [
        name for name, weight in model.named_parameters() if weight.grad is None or not weight.grad.abs().sum() > 0
    ]
    # adding one vector to every key changes nothing in softmax attention, but does in flow attention
    assert still == []


@pytest.mark.parametrize("implementation", ["flow", "sdpa", "eager"])
@pytest.mark.parametrize("modality", MODALITIES)
def test_the_twins_share_names_and_shapes(modality, implementation, tmp_path):
    model = model_of(modality, attn_implementation="flow")
    model.save_pretrained(tmp_path)
    twin = AutoModel.from_pretrained(tmp_path, attn_implementation=implementation)
    assert twin.config._attn_implementation == implementation
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), twin.state_dict().values(), strict=True))
    ours, theirs = (m(**tiny_inputs(model.config)).last_hidden_state for m in (model, twin.eval()))
    assert torch.allclose(ours, theirs, atol=1e-5) == (implementation == "flow")


@pytest.mark.parametrize("modality", MODALITIES)
def test_sdpa_and_eager_are_the_same_function(modality):
    inputs = tiny_inputs(tiny_config(modality))
    first = model_of(modality, attn_implementation="sdpa")
    second = model_of(modality, attn_implementation="eager")
    torch.testing.assert_close(first(**inputs).last_hidden_state, second(**inputs).last_hidden_state)


def test_set_attn_implementation_switches():
    model, inputs = model_of(), tiny_inputs(tiny_config())
    flow = model(**inputs).last_hidden_state
    model.set_attn_implementation("sdpa")
    softmax = model(**inputs).last_hidden_state
    model.set_attn_implementation("flow")
    assert not torch.allclose(flow, softmax, atol=1e-4)
    torch.testing.assert_close(model(**inputs).last_hidden_state, flow)


@pytest.mark.parametrize("implementation", ["flow", "sdpa"])
@pytest.mark.parametrize("causal", [False, True])
@pytest.mark.parametrize("positions", ["learned", "sinusoidal", "rotary"])
@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize("modality", SEQUENCES)
def test_padding_never_changes_a_real_token(modality, side, positions, causal, implementation):
    model = model_of(modality, position_embedding_type=positions, is_causal=causal, attn_implementation=implementation)
    inputs = tiny_inputs(model.config)
    alone = model(**inputs, use_cache=False).last_hidden_state
    real, padding = (slice(3, None), slice(0, 3)) if side == "left" else (slice(0, LENGTH), slice(LENGTH, None))
    mask = torch.ones(2, LENGTH + 3, dtype=torch.long)
    mask[:, padding] = 0
    padded = {}
    for name, tensor in inputs.items():
        padded[name] = torch.full((2, LENGTH + 3, *tensor.shape[2:]), 5, dtype=tensor.dtype)
        padded[name][:, real] = tensor
    output = model(**padded, attention_mask=mask, use_cache=False).last_hidden_state
    steps = output.shape[1] // (LENGTH + 3)
    output = output.unflatten(1, (LENGTH + 3, steps))[:, real].flatten(1, 2)
    torch.testing.assert_close(output, alone, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("implementation", ["flow", "sdpa"])
def test_causal_models_do_not_see_the_future(implementation):
    model = model_of(is_causal=True, attn_implementation=implementation)
    ids = tiny_inputs(model.config)["input_ids"]
    changed = ids.clone()
    changed[:, 4:] = (changed[:, 4:] + 1) % model.config.vocab_size
    first, second = model(ids).last_hidden_state, model(changed).last_hidden_state
    torch.testing.assert_close(first[:, :4], second[:, :4])
    assert not torch.allclose(first[:, 4:], second[:, 4:], atol=1e-3)
    assert not torch.allclose(model(ids, is_causal=False).last_hidden_state[:, :4], first[:, :4], atol=1e-3)


@pytest.mark.parametrize("implementation", ["flow", "sdpa", "eager"])
@pytest.mark.parametrize("modality", SEQUENCES)
def test_a_mask_of_ones_is_no_mask(modality, implementation):
    model = model_of(modality, attn_implementation=implementation, is_causal=True)
    inputs = tiny_inputs(model.config)
    output = model(**inputs, attention_mask=torch.ones(2, LENGTH)).last_hidden_state
    torch.testing.assert_close(output, model(**inputs).last_hidden_state)


def test_batch_norm_statistics_are_those_of_real_tokens():
    model = model_of("time_series", norm_type="batch_norm", norm_position="post").train()
    inputs = tiny_inputs(model.config)
    padded = torch.cat((inputs["past_values"], torch.full((2, 5, 3), 9.0)), dim=1)
    mask = torch.cat((torch.ones(2, LENGTH), torch.zeros(2, 5)), dim=1)
    twin = model_of("time_series", norm_type="batch_norm", norm_position="post").train()
    output = twin(past_values=padded, attention_mask=mask).last_hidden_state[:, :LENGTH]
    torch.testing.assert_close(model(**inputs).last_hidden_state, output, atol=1e-5, rtol=1e-4)
    for name, buffer in model.named_buffers():
        torch.testing.assert_close(buffer, twin.get_buffer(name), msg=name)


def test_the_gradient_of_masked_batch_norm_is_that_of_the_selected_tokens():
    from hf_transfer.models.flowformer.layers_flowformer import FlowformerBatchNorm

    torch.manual_seed(0)
    mask, weights = torch.rand(3, 6) > 0.4, torch.randn(3, 6, 5, dtype=torch.float64)
    states = torch.randn(3, 6, 5, dtype=torch.float64, requires_grad=True)
    masked, plain = FlowformerBatchNorm(5).double(), nn.BatchNorm1d(5).double()
    output, selected = masked(states.masked_fill(~mask[..., None], torch.nan), mask), plain(states[mask])
    torch.testing.assert_close(output[mask], selected)
    assert not output[~mask].any()
    (found,) = torch.autograd.grad((output * weights).sum(), states)
    (expected,) = torch.autograd.grad((selected * weights[mask]).sum(), states)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(masked.state_dict(), plain.state_dict())


def test_the_imagenet_pyramid_has_the_lengths_of_the_paper():
    config = tiny_config(
        "image",
        image_size=224,
        patch_size=4,
        num_channels=3,
        hidden_sizes=[8, 16, 24, 32],
        depths=[1, 1, 1, 1],
        layer_scale_init_value=1e-3,
    )
    model = FlowformerModel(config).eval()
    with torch.no_grad():
        output = model(pixel_values=torch.randn(1, 3, 224, 224), output_hidden_states=True)
    assert [tuple(states.shape[1:]) for states in output.hidden_states] == [
        (3136, 8),
        (3136, 8),
        (784, 16),
        (196, 24),
        (49, 32),
    ]
    assert model.layers[0].mlp_scale.scale.unique().tolist() == pytest.approx([1e-3])
    assert isinstance(model.layers[0].attention_scale, nn.Identity)


def test_positions_interpolate_to_another_image_size():
    model = model_of("image")
    images = torch.randn(1, 1, 12, 8)
    with pytest.raises(ValueError, match="doesn't match model"):
        model(pixel_values=images)
    output = model(pixel_values=images, interpolate_pos_encoding=True).last_hidden_state
    assert output.shape == (1, 6 * 4, 16)


def test_drop_path_keeps_the_mean_and_drops_whole_rows():
    from hf_transfer.models.flowformer.layers_flowformer import FlowformerDropPath

    torch.manual_seed(0)
    layer, ones = FlowformerDropPath(0.25).train(), torch.ones(4000, 3, 2)
    dropped = layer(ones)
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)
    assert ((dropped == 0).flatten(1).all(1) | (dropped > 0).flatten(1).all(1)).all()
    assert torch.equal(layer.eval()(ones), ones)


TRAJECTORY = tiny_inputs(tiny_config("trajectory"))
BAD_INPUTS = [
    ("text", {"input_ids": torch.tensor([[1, 31]])}, r"`input_ids` should be in \[0, 30\]"),
    ("text", {"input_ids": torch.tensor([[-1, 3]])}, "`input_ids` should be in"),
    ("text", {"input_ids": torch.zeros(2, 0, dtype=torch.long)}, "empty"),
    ("text", {"input_ids": torch.zeros(0, 3, dtype=torch.long)}, "empty"),
    ("text", {"input_ids": torch.ones(1, 65, dtype=torch.long)}, "max_position_embeddings"),
    ("text", {}, "exactly one"),
    ("text", {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 4)}, "attention_mask"),
    (
        "text",
        {"input_ids": torch.ones(2, 3, dtype=torch.long), "attention_mask": torch.ones(2, 1, 3, 3)},
        "attention_m",
    ),
    ("text", {"input_ids": torch.ones(2, 1, dtype=torch.long), "position_ids": torch.arange(5)[None]}, "position_ids"),
    ("text", {"input_ids": torch.ones(2, 4, dtype=torch.long), "position_ids": torch.arange(5)[None]}, "position_ids"),
    ("text", {"pixel_values": torch.ones(1, 1, 8, 8)}, "for text takes"),
    ("image", {"pixel_values": torch.ones(1, 1, 8, 12)}, "doesn't match model"),
    ("image", {"pixel_values": torch.ones(1, 1, 9, 8), "interpolate_pos_encoding": True}, "multiples of 2"),
    ("image", {"pixel_values": torch.ones(0, 1, 8, 8)}, "at least one image"),
    ("image", {"pixel_values": torch.ones(1, 3, 8, 8)}, "num_channels"),
    ("image", {"pixel_values": torch.ones(1, 1, 8, 8), "attention_mask": torch.ones(1, 16)}, "no padding"),
    ("image", {}, "needs `pixel_values`"),
    ("time_series", {"past_values": torch.tensor([[[1.0, float("nan"), 0.0]]])}, "NaN"),
    ("time_series", {"past_values": torch.tensor([[[1.0, float("inf"), 0.0]]])}, "NaN or infinite"),
    ("time_series", {"past_values": torch.ones(2, 0, 3)}, "empty"),
    ("time_series", {"past_values": torch.ones(2, 5, 4)}, "num_input_channels"),
    ("trajectory", {"states": torch.ones(1, 3, 5)}, "missing"),
    ("trajectory", {**TRAJECTORY, "states": torch.ones(2, LENGTH, 4)}, "`states` should be"),
    ("trajectory", {**TRAJECTORY, "timesteps": torch.full((2, LENGTH), 20)}, "max_episode"),
    ("trajectory", {**TRAJECTORY, "timesteps": torch.arange(LENGTH)}, r"\[batch, time\]"),
    ("trajectory", {**TRAJECTORY, "attention_mask": torch.ones(2, LENGTH + 1)}, "attention_mask"),
    ("trajectory", {name: tensor[:, :0] for name, tensor in TRAJECTORY.items()}, "empty"),
]


@pytest.mark.parametrize(
    ("modality", "inputs", "message"), BAD_INPUTS, ids=[f"{m}-{t[:20]}" for m, _, t in BAD_INPUTS]
)
def test_bad_input_is_refused_with_a_reason(modality, inputs, message):
    with pytest.raises(ValueError, match=message):
        model_of(modality)(**inputs)


def test_a_pyramid_takes_sizes_that_every_stage_can_halve():
    model = model_of("image", hidden_sizes=[8, 16], depths=[1, 1])
    assert model(pixel_values=torch.ones(1, 1, 12, 8), interpolate_pos_encoding=True).last_hidden_state.shape == (
        1,
        6,
        16,
    )
    with pytest.raises(ValueError, match="multiples of 4"):
        model(pixel_values=torch.ones(1, 1, 10, 10), interpolate_pos_encoding=True)


def test_missing_values_may_hide_behind_the_mask():
    model, values = model_of("time_series"), torch.randn(1, 4, 3)
    expected = model(past_values=values[:, :3]).last_hidden_state
    values[:, 3] = float("nan")
    output = model(past_values=values, attention_mask=torch.tensor([[1, 1, 1, 0]])).last_hidden_state
    torch.testing.assert_close(output[:, :3], expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("modality", MODALITIES)
def test_gradient_checkpointing_gives_the_same_gradient(modality):
    gradients = []
    for checkpointing in (False, True):
        model = model_of(modality).train()
        if checkpointing:
            model.gradient_checkpointing_enable()
        model(**tiny_inputs(model.config)).last_hidden_state.square().sum().backward()
        gradients.append({name: weight.grad for name, weight in model.named_parameters()})
    torch.testing.assert_close(*gradients)


BATCH_NORM = {"norm_type": "batch_norm", "norm_position": "post", "num_hidden_layers": 1}
RIGHT_PADDING = torch.tensor([[1] * LENGTH, [1] * 4 + [0] * (LENGTH - 4)])


@pytest.mark.parametrize(
    ("modality", "fields"),
    [
        ("text", {"is_causal": True}),
        slow("time_series", BATCH_NORM),
        slow("image", {}),
        slow("trajectory", {"is_causal": True}),
    ],
)
@pytest.mark.slow
def test_the_whole_model_is_one_graph(modality, fields):
    """In training, with a padding mask where there is one: no check of the input breaks the graph."""
    model, twin = (model_of(modality, **fields).train() for _ in range(2))
    inputs = tiny_inputs(model.config)
    if modality != "image":
        inputs["attention_mask"] = RIGHT_PADDING
    torch._dynamo.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")(**inputs, use_cache=False)
    expected = twin(**inputs, use_cache=False).last_hidden_state
    torch.testing.assert_close(compiled.last_hidden_state, expected, atol=1e-5, rtol=1e-4)
    torch._dynamo.reset()


@pytest.mark.parametrize(
    "modality",
    [slow("text"), "image", slow("time_series")],
)
def test_the_bidirectional_model_exports(modality):
    model, inputs, shapes = model_of(modality), tiny_inputs(tiny_config(modality)), None
    other = tiny_inputs(model.config, batch=3, length=12, seed=1)
    if modality != "image":
        batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=64)
        inputs["attention_mask"], other["attention_mask"] = RIGHT_PADDING, torch.ones(3, 12, dtype=torch.long).tril(5)
        shapes = {name: {0: batch, 1: length} for name in inputs}
    program = torch.export.export(model, (), kwargs=inputs, dynamic_shapes=shapes).module()
    inputs = inputs if shapes is None else other
    torch.testing.assert_close(program(**inputs).last_hidden_state, model(**inputs).last_hidden_state)


@pytest.mark.parametrize(
    "fields",
    [
        {},
        slow({"layer_types": ["flow_attention", "full_attention"]}),
        slow({"layer_types": ["flow_attention", "sliding_attention"], "sliding_window": 4}),
    ],
    ids=["flow", "hybrid", "sliding"],
)
def test_the_causal_model_exports_with_free_batch_and_length(fields):
    config = tiny_config("text", is_causal=True, **fields)
    model = AutoModelForCausalLM.from_config(config).eval()
    batch, length = torch.export.Dim("batch", max=64), torch.export.Dim("length", max=64)
    inputs = {"input_ids": torch.randint(5, 20, (2, 10)), "attention_mask": torch.ones(2, 10, dtype=torch.long)}
    shapes = {name: {0: batch, 1: length} for name in inputs} | {"use_cache": None}
    program = torch.export.export(model, (), {**inputs, "use_cache": False}, dynamic_shapes=shapes).module()
    other = {"input_ids": torch.randint(5, 20, (3, 12)), "attention_mask": torch.ones(3, 12, dtype=torch.long).tril(5)}
    torch.testing.assert_close(program(**other, use_cache=False).logits, model(**other).logits)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_loads_and_runs(dtype, tmp_path):
    model_of().save_pretrained(tmp_path)
    model = AutoModel.from_pretrained(tmp_path, dtype=dtype).eval()
    output = model(**tiny_inputs(model.config)).last_hidden_state
    assert output.dtype == dtype and output.isfinite().all()
    full = model_of()(**tiny_inputs(model.config)).last_hidden_state
    torch.testing.assert_close(output.float(), full, atol=0.1, rtol=0.1)


def test_shards_load_again(tmp_path):
    model = model_of()
    model.save_pretrained(tmp_path, max_shard_size="4KB")
    assert len(list(tmp_path.glob("model-*.safetensors"))) > 1
    loaded = AutoModel.from_pretrained(tmp_path)
    assert all(
        torch.equal(a, b) for a, b in zip(model.state_dict().values(), loaded.state_dict().values(), strict=True)
    )


def test_layers_are_the_units_that_devices_share():
    plugin = FullyShardedDataParallelPlugin(auto_wrap_policy="transformer_based_wrap")
    model = model_of()
    plugin.set_auto_wrap_policy(model)
    assert plugin.auto_wrap_policy.keywords["transformer_layer_cls"] == {type(layer) for layer in model.layers}


@pytest.mark.parametrize("device_map", ["cpu", "auto", {"": "cpu"}, "disk"])
def test_dispatch_over_a_device_map(device_map, tmp_path):
    model_of().save_pretrained(tmp_path)
    options = {"device_map": device_map}
    if device_map == "disk":
        options = {"device_map": "auto", "max_memory": {"cpu": 9000}, "offload_folder": tmp_path / "offload"}
    model = AutoModel.from_pretrained(tmp_path, **options).eval()
    assert device_map != "disk" or "disk" in model.hf_device_map.values()
    inputs = tiny_inputs(model.config)
    torch.testing.assert_close(model(**inputs).last_hidden_state, model_of()(**inputs).last_hidden_state)


def test_a_model_goes_to_the_hub_and_comes_back(hub):
    model = model_of()
    model.push_to_hub("lab/flow")
    assert {"config.json", "model.safetensors"} <= set(hub.files("lab/flow"))
    loaded = AutoModel.from_pretrained("lab/flow")
    torch.testing.assert_close(loaded.state_dict(), model.state_dict())


@pytest.mark.parametrize("head", [FlowformerModel, FlowformerForSequenceClassification])
@pytest.mark.parametrize(("attention", "recorded"), [("flow", "flow"), ("sdpa", "sdpa"), ("eager", "sdpa")])
def test_a_model_comes_back_with_the_attention_it_was_saved_with(head, attention, recorded, tmp_path, caplog):
    torch.manual_seed(0)
    model = head(tiny_config(attn_implementation=attention)).eval()
    inputs = tiny_inputs(model.config)
    model.save_pretrained(tmp_path)
    loaded = head.from_pretrained(tmp_path).eval()
    assert loaded.config._attn_implementation == loaded.config.trained_attention == recorded
    torch.testing.assert_close(loaded(**inputs)[0], model(**inputs)[0])
    assert "were trained with" not in caplog.text
    # another one is a choice that is told
    other = "flow" if recorded == "sdpa" else "sdpa"
    assert head.from_pretrained(tmp_path, attn_implementation=other).config._attn_implementation == other
    assert f"trained with {recorded} attention" in caplog.text


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
def test_synchronised_batch_norm_is_batch_norm_over_real_tokens(attention):
    options = {"norm_type": "batch_norm", "norm_position": "pre", "attn_implementation": attention}
    model, twin = (model_of("time_series", **options).train() for _ in range(2))
    model = nn.SyncBatchNorm.convert_sync_batchnorm(model)
    assert any(isinstance(module, nn.SyncBatchNorm) for module in model.modules())
    inputs = tiny_inputs(twin.config)
    for mask in (None, RIGHT_PADDING):
        for ours in (model.train(), model.eval()):
            theirs = twin.train(ours.training)
            real = torch.ones(2, LENGTH, dtype=torch.bool) if mask is None else mask.bool()
            output, expected = (each(**inputs, attention_mask=mask).last_hidden_state for each in (ours, theirs))
            torch.testing.assert_close(output[real], expected[real], atol=1e-5, rtol=1e-4)
    images = model_of("image", norm_type="batch_norm", hidden_sizes=[8, 16], depths=[1, 1])
    converted = nn.SyncBatchNorm.convert_sync_batchnorm(images)
    assert converted(**tiny_inputs(images.config)).last_hidden_state.isfinite().all()


def test_attention_weights_exist_under_eager_alone(monkeypatch):
    inputs = tiny_inputs(tiny_config())
    assert len(model_of(attn_implementation="eager")(**inputs, output_attentions=True).attentions) == 2
    told = []
    monkeypatch.setattr(flow_compatibility, "logger", SimpleNamespace(warning_once=told.append))
    assert model_of()(**inputs, output_attentions=True).attentions == ()
    assert "no attention weights" in told[0]


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
def test_a_cache_of_other_rows_is_refused(attention):
    model = model_of(is_causal=True, attn_implementation=attention)
    ids = tiny_inputs(model.config)["input_ids"]
    cache = model(ids, use_cache=True).past_key_values
    with pytest.raises(ValueError, match="holds 2 rows and the input 1"):
        model(ids[:1, :1], past_key_values=cache)
    assert model(ids[:, :1], past_key_values=cache).last_hidden_state.shape == (2, 1, 16)


def test_a_width_of_attention_unlike_the_layers():
    fields = {"attention_size": 24, "qkv_bias": False, "out_bias": False, "position_embedding_type": "rotary"}
    model = model_of(num_attention_heads=4, hidden_size=16, **fields).train()
    shapes = {name: tuple(weight.shape) for name, weight in model.layers[0].attention.named_parameters()}
    assert shapes == {f"{name}_proj.weight": (24, 16) for name in "qkv"} | {"o_proj.weight": (16, 24)}
    model(**tiny_inputs(model.config)).last_hidden_state.square().sum().backward()


def test_the_norm_at_the_end_is_a_choice():
    assert model_of(norm_position="post").norm is None and model_of(norm_position="pre", final_norm=False).norm is None
    output = model_of(norm_position="post", final_norm=True)(**tiny_inputs(tiny_config())).last_hidden_state
    torch.testing.assert_close(output.mean(-1), torch.zeros(2, LENGTH), atol=1e-5, rtol=0)


def test_projected_steps_are_scaled_by_the_root_of_the_width():
    values = tiny_inputs(tiny_config("time_series"))["past_values"]
    plain, scaled = (model_of("time_series", scale_embeddings=scale).embeddings for scale in (False, True))
    torch.testing.assert_close(scaled.project(values, None), plain.project(values, None) * 4)


def test_words_are_scaled_by_the_root_of_the_width():
    ids = tiny_inputs(tiny_config())["input_ids"]
    plain, scaled = (model_of(scale_embeddings=scale) for scale in (False, True))
    torch.testing.assert_close(scaled.get_input_embeddings()(ids), plain.get_input_embeddings()(ids) * 4)
    scaled.resize_token_embeddings(40)
    torch.testing.assert_close(scaled.get_input_embeddings()(ids), plain.get_input_embeddings()(ids) * 4)
    with pytest.raises(ValueError, match="scale_embeddings"):
        tiny_config("image", scale_embeddings=True)


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_a_mask_per_pair_may_be_boolean_or_added(implementation):
    model = model_of(attn_implementation=implementation)
    ids = tiny_inputs(model.config)["input_ids"]
    keep = torch.ones(len(ids), 1, LENGTH, LENGTH, dtype=torch.bool).tril()
    added = torch.zeros(keep.shape).masked_fill(~keep, torch.finfo(torch.float32).min)
    expected = model(ids, is_causal=True).last_hidden_state
    for mask in (keep, added):
        torch.testing.assert_close(model(ids, attention_mask=mask).last_hidden_state, expected)
    with pytest.raises(ValueError, match="should be boolean"):
        model(ids, attention_mask=keep.long())
