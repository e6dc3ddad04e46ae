"""The recipes have the released codes' settings where those differ from the defaults, and these do as said."""

from pathlib import Path

import pytest
import torch

from hf_transfer.models.flowformer import (
    FlowformerForImageClassification,
    FlowformerForSequenceClassification,
    flow_attention,
)
from hf_transfer.models.flowformer.flow_attention import naive_flow_attention
from hf_transfer.runs.arguments import read_yaml
from hf_transfer.runs.models import new_config
from tests.models.flowformer.tiny import tiny_config, tiny_inputs

RECIPES = Path(__file__).parents[3] / "recipes" / "flowformer"
# trajectories 10, language modelling 5, images 1, time series and the Long Range Arena none
CLAMPS = {"offline": 10.0, "wikipedia": 5.0, "bible": 5.0, "mnist": 1.0, "emoji": 1.0}
"""By the first word of a recipe's name; of all others none, 30."""


def architecture(name: str) -> dict:
    return read_yaml(RECIPES / f"{name}.yaml")["architecture"]


@pytest.mark.parametrize("path", sorted(RECIPES.glob("*.yaml")), ids=lambda path: path.stem)
def test_every_recipe_says_its_clamp(path):
    settings = architecture(path.stem)
    assert settings["competition_clamp"] == CLAMPS.get(path.stem.split("_")[0], 30.0)
    assert settings.get("feature_map") == "shifted_relu" or not path.stem.startswith("list_ops")
    new_config(settings)


def test_the_released_image_class_has_its_default_number_of_parameters():
    sizes = {"hidden_sizes": [64, 128, 256, 512], "depths": [2, 2, 10, 4], "num_attention_heads": [2, 4, 8, 16]}
    config = new_config({**architecture("mnist_paper"), **sizes, "num_labels": 1000})
    with torch.device("meta"):
        assert FlowformerForImageClassification(config).num_parameters() == 22_415_528


@pytest.mark.parametrize("name", ["basic_motions", "japanese_vowels", "wikipedia", "mnist"])
def test_a_small_recipe_differs_from_the_paper_s_in_sizes_and_dropout(name):
    sizes = {"hidden_size", "hidden_sizes", "depths", "num_hidden_layers", "num_attention_heads", "intermediate_size"}
    sizes |= {"vocab_size", "max_position_embeddings", "max_episode_length", "image_size", "patch_size"}
    sizes |= {"num_channels", "classifier_hidden_size", "initializer_range", "linear_initializer_range"}
    sizes |= {"hidden_dropout_prob", "classifier_dropout", "drop_path_rate"}
    small, paper = ({k: v for k, v in architecture(n).items() if k not in sizes} for n in (name, f"{name}_paper"))
    assert small == paper


@pytest.mark.parametrize("causal", [False, True])
def test_shifted_relu_averages_where_no_feature_is_above_zero(causal):
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, 9, 3, dtype=torch.float64).requires_grad_() for _ in range(3))
    dark = query.detach().clone()
    dark[:, :, 4] = -1.0
    options = {"causal": causal, "competition_clamp": 30.0}
    assert not flow_attention(dark, key, value, feature_map="relu", **options)[:, :, 4].any()
    # relu + 1e-6 by hand, through the map that is the identity above zero
    shifted = [states.relu() + 1e-6 for states in (dark, key)]
    expected = flow_attention(*shifted, value, feature_map="relu", **options)
    output = flow_attention(dark, key, value, feature_map="shifted_relu", **options)
    torch.testing.assert_close(output, expected)
    assert output[:, :, 4].abs().min() > 1e-3
    naive = naive_flow_attention(query, key, value, feature_map="shifted_relu", **options)
    weights = torch.randn_like(value)
    fast = flow_attention(query, key, value, feature_map="shifted_relu", **options)
    torch.testing.assert_close(fast, naive)
    found, wanted = (torch.autograd.grad((x * weights).sum(), (query, key, value)) for x in (fast, naive))
    torch.testing.assert_close(found, wanted)


@pytest.mark.parametrize("attention", ["flow", "sdpa"])
@pytest.mark.parametrize("side", ["left", "right"])
def test_the_class_token_is_what_the_head_reads(side, attention):
    torch.manual_seed(0)
    config = tiny_config(class_token=True, pooling="first", classifier_hidden_size=12, attn_implementation=attention)
    model = FlowformerForSequenceClassification(config).eval()
    ids = tiny_inputs(config)["input_ids"]
    plain = model(ids)
    padding, mask = torch.full((2, 2), 7), torch.zeros(2, 9, dtype=torch.long)
    mask[:, slice(2, 9) if side == "left" else slice(0, 7)] = 1
    padded = torch.cat((padding, ids) if side == "left" else (ids, padding), dim=1)
    torch.testing.assert_close(model(padded, attention_mask=mask).logits, plain.logits, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(model(ids, position_ids=torch.arange(7)[None]).logits, plain.logits)
    embedded = model(inputs_embeds=model.get_input_embeddings()(ids)).logits
    torch.testing.assert_close(embedded, plain.logits)
    model(ids, labels=torch.tensor([0, 1])).loss.backward()
    assert all(weight.grad is not None for weight in (model.class_token, model.dense.weight))
