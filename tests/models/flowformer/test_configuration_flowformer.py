"""Every field combination that cannot be built says so; everything else survives a save."""

import copy
import json

import pytest
from transformers import AutoConfig

import hf_transfer  # noqa: F401  registers the configuration
from hf_transfer.models.flowformer import FlowformerConfig, FlowformerModel
from tests.models.flowformer.tiny import tiny_config

MILLION = 1e6
EXPECTED_MILLIONS = {"tiny": 4.4, "small": 22.6, "base": 108.9, "large": 334.1}


@pytest.mark.parametrize("size", ["tiny", "small", "base", "large"])
def test_named_sizes_have_the_size_of_their_name(size):
    config = FlowformerConfig.from_size(size)
    width, depth = config.hidden_size, config.num_hidden_layers
    layer = (
        4 * width * (width + 1) + 2 * width * config.intermediate_size + width + config.intermediate_size + 4 * width
    )
    tables = (config.vocab_size + config.max_position_embeddings) * width
    assert (tables + depth * layer + 2 * width) / MILLION == pytest.approx(EXPECTED_MILLIONS[size], rel=0.01)


def test_the_count_of_parameters_is_that_formula():
    config = FlowformerConfig.from_size("tiny")
    assert FlowformerModel(config).num_parameters() / MILLION == pytest.approx(EXPECTED_MILLIONS["tiny"], rel=0.01)


def test_from_size_overrides_and_refuses_unknown_names():
    assert FlowformerConfig.from_size("small", modality="image", hidden_size=36).hidden_size == 36
    with pytest.raises(ValueError, match="should be one of"):
        FlowformerConfig.from_size("huge")


def test_saved_configuration_comes_back_by_name(tmp_path):
    config = FlowformerConfig(modality="image", hidden_sizes=[8, 16], depths=[1, 2], num_attention_heads=[2, 4])
    config.save_pretrained(tmp_path)
    loaded = AutoConfig.from_pretrained(tmp_path)
    assert isinstance(loaded, FlowformerConfig)
    assert loaded.to_diff_dict() == config.to_diff_dict()
    assert loaded.stages == config.stages


def test_a_pyramid_defines_width_and_depth():
    paper = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 10, 4], "patch_size": 4}
    config = FlowformerConfig(modality="image", num_attention_heads=8, **paper)
    assert (config.hidden_size, config.num_hidden_layers) == (512, 18)
    assert [stage["intermediate_size"] for stage in config.stages] == [256, 512, 1024, 2048]


def test_layer_types_follow_the_attention():
    assert set(tiny_config().layer_types) == {"flow_attention"}
    assert set(tiny_config(attn_implementation="sdpa").layer_types) == {"full_attention"}


ROTARY = {"position_embedding_type": "rotary"}
BAD = [
    ({"modality": "smell"}, "modality"),
    ({"hidden_size": 10, "num_attention_heads": 3}, "multiple of `num_attention_heads`"),
    ({"num_attention_heads": 0}, "num_attention_heads"),
    ({"num_hidden_layers": 0}, "num_hidden_layers"),
    ({"vocab_size": 0}, "vocab_size"),
    ({"hidden_size": 0}, "hidden_size"),
    ({"intermediate_size": 0}, "intermediate_size"),
    ({"type_vocab_size": -1}, "type_vocab_size"),
    ({"pad_token_id": 31}, "below `vocab_size=31`"),
    ({"competition_clamp": 0.0}, "competition_clamp"),
    ({"flow_eps": 0.0}, "`eps`"),
    ({"modality": "trajectory", "max_episode_length": 0}, "max_episode_length"),
    ({"norm_type": "rms"}, "norm_type"),
    ({"norm_position": "middle"}, "norm_position"),
    ({"position_embedding_type": "alibi"}, "position_embedding_type"),
    ({"feature_map": "tanh"}, "feature_map"),
    ({"pooling": "max"}, "pooling"),
    ({"pooling": "flatten"}, "time_series"),
    ({"pooling": "first", "is_causal": True}, "first causal token"),
    ({"hidden_dropout_prob": 1.0}, "hidden_dropout_prob"),
    ({"drop_path_rate": -0.1}, "drop_path_rate"),
    ({"modality": "image", "mask_ratio": 1.5}, "mask_ratio"),
    ({"modality": "image", "is_causal": True}, "is_causal"),
    ({"modality": "image", "image_size": 9}, "multiple of `patch_size`"),
    ({"modality": "image", "image_size": 9, "patch_size": 3, "stem": "conv"}, "power of two"),
    ({"modality": "image", "stem": "mlp"}, "stem"),
    ({"modality": "image", "hidden_sizes": [8, 16]}, "belong together"),
    ({"modality": "image", "hidden_sizes": [8, 16], "depths": [1]}, "depths"),
    ({"modality": "image", "hidden_sizes": [8, 16, 32, 64], "depths": [1, 1, 1, 1]}, "halves the 4 x 4"),
    ({"hidden_sizes": [8, 16], "depths": [1, 1]}, "modality='image'"),
    ({"modality": "image", "decoder_num_attention_heads": 3}, "decoder_hidden_size"),
    ({"position_embedding_type": "rotary", "num_attention_heads": 16}, "Rotary"),
    ({"num_key_value_heads": 0}, "num_key_value_heads"),
    ({"num_attention_heads": 4, "num_key_value_heads": 3}, "multiple of `num_key_value_heads`"),
    ({"rope_scaling": {"rope_type": "linear", "factor": 2.0}}, "position_embedding_type='rotary'"),
    ({"rope_parameters": {"rope_type": "yarn", "factor": 2.0}}, "position_embedding_type='rotary'"),
    (ROTARY | {"rope_parameters": {"rope_type": "linear"}}, "no 'linear' rotation.*factor"),
    (ROTARY | {"rope_parameters": {"rope_type": "spiral"}}, "`rope_type` should be one of"),
    (ROTARY | {"rope_parameters": {"full_attention": {"rope_type": "default"}}}, "All layers rotate alike"),
    (ROTARY | {"rope_parameters": {"partial_rotary_factor": 0.5}}, "whole heads"),
    (ROTARY | {"partial_rotary_factor": 0.5}, "whole heads"),
    (ROTARY | {"modality": "image", "rope_scaling": {"rope_type": "linear", "factor": 2.0}}, r"one of \['default'\]"),
    (ROTARY | {"head_dim": 32}, "width of a head"),
    ({"layer_types": ["flow_attention", "linear_attention"]}, r"got \['linear_attention'\]"),
    ({"layer_types": ["flow_attention"]}, "name 2 layers"),
    ({"layer_types": ["flow_attention", "sliding_attention"]}, "needs a `sliding_window`"),
    ({"layer_types": ["flow_attention", "full_attention"], "sliding_window": 3}, "whole sequence"),
    ({"modality": "image", "layer_types": ["sliding_attention"] * 2, "sliding_window": 3}, "image patches"),
    ({"d_model": 16}, "called `hidden_size`"),
    ({"attention_size": 9}, "`attention_size` should be a multiple"),
    ({"attention_size": 0}, "attention_size"),
    ({"classifier_hidden_size": 0}, "classifier_hidden_size"),
    ({"trained_attention": "softmax"}, "trained_attention"),
    ({"class_token": True}, "pooling='first'"),
    ({"position_embedding_type": "sinusoidal", "hidden_size": 15, "num_attention_heads": 3}, "Sinusoidal"),
]


@pytest.mark.parametrize(("fields", "message"), BAD, ids=[str(fields) for fields, _ in BAD])
def test_what_cannot_be_built_says_why(fields, message):
    with pytest.raises(ValueError, match=message):
        tiny_config(**fields)


def test_a_window_that_no_layer_reads_is_told(caplog):
    assert tiny_config(sliding_window=5).sliding_window == 5
    assert "`sliding_window=5` needs a 'sliding_attention'" in caplog.text


def test_a_field_of_the_wrong_type_is_refused():
    with pytest.raises(Exception, match="hidden_size"):
        FlowformerConfig(hidden_size="wide")


def saved(config: FlowformerConfig, folder) -> dict:
    config.save_pretrained(folder)
    return json.loads((folder / "config.json").read_text())


# fields that one modality alone reads, at values that are no defaults
OWN = {
    "text": {"vocab_size": 77, "type_vocab_size": 2, "eos_token_id": 5, "tie_word_embeddings": False},
    "image": {"image_size": 32, "num_channels": 4, "hidden_sizes": [8, 16], "depths": [1, 1], "norm_pix_loss": False},
    "time_series": {"num_input_channels": 6, "prediction_length": 9, "scale_inputs": False},
    "trajectory": {"state_dim": 8, "act_dim": 7, "discrete_actions": True, "max_episode_length": 33},
}


@pytest.mark.parametrize("modality", OWN)
def test_a_saved_configuration_has_the_fields_of_its_modality(modality, tmp_path):
    shared = {"hidden_size": 16, "num_attention_heads": 2, "competition_clamp": 7.0}
    everything = {name: value for fields in OWN.values() for name, value in fields.items()}
    everything = {k: v for k, v in everything.items() if modality == "image" or k not in ("hidden_sizes", "depths")}
    config = FlowformerConfig(modality=modality, **{**everything, **shared})
    found = saved(config, tmp_path)
    foreign = {name for other, fields in OWN.items() if other != modality for name in fields}
    assert not foreign & (set(found) | set(config.to_dict()))
    loaded = FlowformerConfig.from_pretrained(tmp_path)
    assert loaded.to_dict() == config.to_dict()
    assert {name: getattr(loaded, name) for name in OWN[modality]} == OWN[modality]


def test_a_folder_of_an_earlier_version_loads(tmp_path):
    """It has the fields of all modalities, and `rope_theta` beside them."""
    old = {"model_type": "flowformer", "modality": "text", "hidden_size": 16, "num_attention_heads": 2}
    old |= {"image_size": 224, "num_input_channels": 1, "state_dim": 17, "decoder_hidden_size": 512, "vocab_size": 9}
    for positions, theta in (("learned", None), ("rotary", {"rope_theta": 5e5, "rope_type": "default"})):
        fields = old | {"rope_theta": 5e5, "position_embedding_type": positions}
        (tmp_path / "config.json").write_text(json.dumps(fields))
        config = FlowformerConfig.from_pretrained(tmp_path)
        assert (config.vocab_size, config.rope_parameters) == (9, theta)
        assert "rope_theta" not in saved(config, tmp_path) and "image_size" not in saved(config, tmp_path)


def test_rotary_parameters_are_those_of_transformers(tmp_path):
    linear = {"rope_type": "linear", "factor": 4.0, "rope_theta": 100.0}
    given = ({"rope_parameters": linear}, {"rope_theta": 100.0, "rope_scaling": {"type": "linear", "factor": 4.0}})
    for fields in given:
        before = copy.deepcopy(fields)
        config = tiny_config(position_embedding_type="rotary", **fields)
        assert fields == before
        assert linear.items() <= config.rope_parameters.items() and config.rope_theta == 100.0
        assert linear.items() <= saved(config, tmp_path)["rope_parameters"].items()
        assert FlowformerConfig.from_pretrained(tmp_path).rope_parameters == config.rope_parameters
    config.rope_theta = 50.0
    assert config.rope_parameters["rope_theta"] == 50.0
