"""The paper-size recipes build the models that the authors released: parameters, initial weights and outputs.

Written from the published description: names and shapes of the released codes' parameters, how they become ours, and
a plain forward pass that reads them. The competition of the Long Range Arena is the paper's, over tokens.

Paper: Wu et al., ICML 2022, https://huggingface.co/papers/2202.06258, and https://github.com/thuml/Flowformer
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
import yaml
from torch import Tensor
from torch.nn import functional as F
from transformers import PreTrainedModel

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
)
from hf_transfer.runs.models import new_config

RECIPES = Path(__file__).parents[2] / "recipes" / "flowformer"
EPS = 1e-6
LAYER = r"flowformer.layers.\1."


def affine(name: str, *shape: int, bias: bool = True) -> dict[str, tuple[int, ...]]:
    """A matrix of shape [outputs, inputs, ...] with its bias, or a norm of one width."""
    return {f"{name}.weight": shape, **({f"{name}.bias": shape[:1]} if bias else {})}


def flow(query: Tensor, key: Tensor, value: Tensor, heads: int, phi=torch.sigmoid, clamp=math.inf, causal=False):
    """The paper's algorithms 1 and 2 on [B, L, D], with all pairs of tokens."""
    query, key, value = (x.unflatten(-1, (heads, -1)).transpose(1, 2) for x in (query, key, value))
    sinks, sources = phi(query), phi(key)
    total = (lambda x: x.cumsum(2)) if causal else (lambda x: x.sum(2, keepdim=True))
    count = torch.arange(1, query.shape[2] + 1, dtype=query.dtype)[:, None] if causal else query.shape[2]

    def product(one: Tensor, other: Tensor) -> Tensor:
        return ((one + EPS) * (total(other) + EPS)).sum(-1, keepdim=True)

    scale = count if causal else 1
    incoming, outgoing = scale / product(sinks, sources), scale / product(sources, sinks)
    conserved_sink = product(sinks, sources * outgoing) / scale
    conserved_source = (product(sources, sinks * incoming) / scale).clamp(-clamp, clamp).exp()
    competition = conserved_source / total(conserved_source) * count
    pairs = sinks @ sources.mT
    pairs = pairs.tril() if causal else pairs
    output = pairs @ (value * competition) * incoming / scale * conserved_sink.sigmoid()
    return output.transpose(1, 2).flatten(2)


class Weights(dict):
    """Released weights by name, and the two operations that read a pair of them."""

    def linear(self, name: str, x: Tensor) -> Tensor:
        return F.linear(x, self[f"{name}.weight"].flatten(1), self.get(f"{name}.bias"))

    def norm(self, name: str, x: Tensor, eps: float = 1e-5) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], self[f"{name}.weight"], self[f"{name}.bias"], eps)


@dataclass(frozen=True)
class Released:
    """One released model: its layout, what becomes of it here, its number of parameters and its forward pass."""

    head: type[PreTrainedModel]
    fields: dict  # what data gives: classes, channels, vocabulary
    tiny: dict  # sizes to run it at
    layout: Callable[..., dict[str, tuple[int, ...]]]
    rules: list[tuple]  # pattern, name here, and how its tensor changes
    parameters: int
    unread: int  # of parameters that neither loss nor decision reads
    forward: Callable
    inputs: Callable[[], dict[str, Tensor]]
    deviations: dict[str, float]  # of initial weights, by the name here


def image_layout(config) -> dict:
    widths, size, patch = config.hidden_sizes, config.image_size, config.patch_size
    shapes = {"pos_embed": (1, (size // patch) ** 2, widths[0])}
    shapes |= affine("patch_embed.0.proj", widths[0], config.num_channels, patch, patch)
    for stage, (width, depth) in enumerate(zip(widths, config.depths)):
        if stage:
            shapes |= affine(f"patch_embed.{stage}.proj", width, widths[stage - 1], 2, 2)
        for block in (f"blocks.{stage}.{index}" for index in range(depth)):
            shapes |= {f"{block}.gamma": (width,)}
            shapes |= affine(f"{block}.norm1", width) | affine(f"{block}.norm2", width)
            shapes |= affine(f"{block}.attn.qkv", 3 * width, width) | affine(f"{block}.attn.proj", width, width)
            shapes |= affine(f"{block}.mlp.fc1", 4 * width, width) | affine(f"{block}.mlp.fc2", width, 4 * width)
    return shapes | affine("norm", widths[-1]) | affine("head", config.num_labels, widths[-1])


def image_forward(w: Weights, config, pixel_values: Tensor) -> Tensor:
    grid = pixel_values
    for stage, depth in enumerate(config.depths):
        weight, bias = (w[f"patch_embed.{stage}.proj.{kind}"] for kind in ("weight", "bias"))
        grid = F.conv2d(grid, weight, bias, stride=weight.shape[-1])
        x = grid.flatten(2).mT if stage else grid.flatten(2).mT + w["pos_embed"]
        for block in (f"blocks.{stage}.{index}" for index in range(depth)):
            inner = w.linear(f"{block}.attn.qkv", w.norm(f"{block}.norm1", x, 1e-6)).chunk(3, -1)
            x = x + w.linear(f"{block}.attn.proj", flow(*inner, config.num_attention_heads, clamp=1.0))
            inner = F.gelu(w.linear(f"{block}.mlp.fc1", w.norm(f"{block}.norm2", x, 1e-6)))
            x = x + w[f"{block}.gamma"] * w.linear(f"{block}.mlp.fc2", inner)
        grid = x.mT.unflatten(2, grid.shape[2:])
    return w.linear("head", w.norm("norm", x, 1e-6).mean(1))


def image_names(config) -> list[tuple]:
    """The blocks of all stages count through, and one matrix makes queries, keys and values."""
    starts = [sum(config.depths[:stage]) for stage in range(len(config.depths))]

    def layer(match: re.Match) -> str:
        return f"flowformer.layers.{starts[int(match[1])] + int(match[2])}."

    block = r"blocks\.(\d+)\.(\d+)\."
    parts = {"norm1": "attention_norm", "norm2": "mlp_norm", "mlp": "mlp", r"attn\.proj": "attention.o_proj"}
    third = {name: (lambda x, part=part: x.chunk(3)[part]) for part, name in enumerate("qkv")}
    return [
        ("pos_embed", "flowformer.embeddings.position_embeddings"),
        (r"patch_embed\.0\.proj", "flowformer.embeddings.patches"),
        (r"patch_embed\.(\d)\.proj", lambda match: f"flowformer.downsamples.{int(match[1]) - 1}.reduction"),
        *((block + r"attn\.qkv", lambda m, n=n: f"{layer(m)}attention.{n}_proj", take) for n, take in third.items()),
        (block + "gamma", lambda match: layer(match) + "mlp_scale.scale"),
        *((block + old, lambda match, new=new: layer(match) + new) for old, new in parts.items()),
        ("norm", "flowformer.norm"),
        ("head", "classifier"),
    ]


def series_layout(config) -> dict:
    width, inner, steps = config.hidden_size, config.intermediate_size, config.max_position_embeddings
    shapes = affine("project_inp", width, config.num_input_channels) | {"pos_enc.pe": (steps, 1, width)}
    for block in (f"encoder.attn_layers.{index}" for index in range(config.num_hidden_layers)):
        for name in ("query", "key", "value", "out"):
            shapes |= affine(f"{block}.attention.{name}_projection", width, width)
        shapes |= affine(f"{block}.conv1", inner, width, 1) | affine(f"{block}.conv2", width, inner, 1)
        shapes |= affine(f"{block}.norm1", width) | affine(f"{block}.norm2", width)
    return shapes | affine("encoder.norm", width) | affine("output_layer", config.num_labels, width * steps)


def series_forward(w: Weights, config, past_values: Tensor) -> Tensor:
    x = w.linear("project_inp", past_values) * config.hidden_size**0.5
    x = x + w["pos_enc.pe"][: x.shape[1], 0]
    for block in (f"encoder.attn_layers.{index}" for index in range(config.num_hidden_layers)):
        inner = (w.linear(f"{block}.attention.{name}_projection", x) for name in ("query", "key", "value"))
        inner = w.linear(f"{block}.attention.out_projection", flow(*inner, config.num_attention_heads))
        x = w.norm(f"{block}.norm1", x + inner)
        inner = w.linear(f"{block}.conv2", F.gelu(w.linear(f"{block}.conv1", x)))
        x = w.norm(f"{block}.norm2", x + inner)
    return w.linear("output_layer", F.gelu(w.norm("encoder.norm", x)).flatten(1))


def series_names(config) -> list[tuple]:
    block = r"encoder\.attn_layers\.(\d+)\."
    parts = {"norm1": "attention_norm", "norm2": "mlp_norm"}
    parts |= {rf"attention\.{old}_projection": f"attention.{old[0]}_proj" for old in ("query", "key", "value", "out")}
    return [
        ("project_inp", "flowformer.embeddings.projection"),
        (r"pos_enc\.pe", "flowformer.embeddings.positions.table.weight", lambda x: x[:, 0]),
        (block + r"conv(\d)\.weight", LAYER + r"mlp.fc\2.weight", lambda x: x[..., 0]),
        (block + r"conv(\d)", LAYER + r"mlp.fc\2"),
        *((block + old, LAYER + new) for old, new in parts.items()),
        (r"encoder\.norm", "flowformer.norm"),
        ("output_layer", "classifier"),
    ]


def long_range_layout(config) -> dict:
    """Of JAX: matrices are [inputs, outputs], those of attention with an axis of heads."""
    width, inner, heads = config.hidden_size, config.intermediate_size, config.num_attention_heads
    shapes = {"Embed_0/embedding": (config.vocab_size, width), "cls": (1, 1, width)}

    def dense(name: str, inputs: int, outputs: int) -> dict:
        return {f"{name}/kernel": (inputs, outputs), f"{name}/bias": (outputs,)}

    for block in (f"encoderblock_{index}" for index in range(config.num_hidden_layers)):
        for name in ("query", "key", "value"):
            shapes[f"{block}/LinearAttention_1/{name}/kernel"] = (width, heads, width // heads)
        shapes[f"{block}/LinearAttention_1/out/kernel"] = (heads, width // heads, width)
        shapes |= dense(f"{block}/MlpBlock_3/Dense_0", width, inner) | dense(
            f"{block}/MlpBlock_3/Dense_1", inner, width
        )
        for norm in ("LayerNorm_0", "LayerNorm_2"):
            shapes |= {f"{block}/{norm}/scale": (width,), f"{block}/{norm}/bias": (width,)}
    shapes |= {"encoder_norm/scale": (width,), "encoder_norm/bias": (width,)}
    return shapes | dense("mlp", width, inner) | dense("logits", inner, config.num_labels)


def interleaved_sinusoids(length: int, width: int) -> Tensor:
    """sin and cos of one frequency beside one another [L, D]."""
    angles = torch.arange(length, dtype=torch.float64)[:, None]
    angles = angles * torch.exp(torch.arange(0, width, 2, dtype=torch.float64) * -(math.log(10000.0) / width))
    return torch.stack((angles.sin(), angles.cos()), dim=-1).flatten(1)


def long_range_forward(w: Weights, config, input_ids: Tensor) -> Tensor:
    def norm(name: str, x: Tensor) -> Tensor:
        return F.layer_norm(x, x.shape[-1:], w[f"{name}/scale"], w[f"{name}/bias"], 1e-6)

    def dense(name: str, x: Tensor) -> Tensor:
        return x @ w[f"{name}/kernel"] + w[f"{name}/bias"]

    x = w["Embed_0/embedding"][input_ids]
    x = torch.cat((w["cls"].expand(x.shape[0], -1, -1), x), dim=1)
    x = x + interleaved_sinusoids(*x.shape[1:])
    for block in (f"encoderblock_{index}" for index in range(config.num_hidden_layers)):
        y, attention = norm(f"{block}/LayerNorm_0", x), f"{block}/LinearAttention_1"
        inner = (y @ w[f"{attention}/{name}/kernel"].flatten(1) for name in ("query", "key", "value"))
        inner = flow(*inner, config.num_attention_heads, phi=lambda x: x.relu() + 1e-6)
        x = x + inner @ w[f"{attention}/out/kernel"].flatten(0, 1)
        inner = dense(f"{block}/MlpBlock_3/Dense_0", norm(f"{block}/LayerNorm_2", x))
        x = x + dense(f"{block}/MlpBlock_3/Dense_1", F.gelu(inner, approximate="tanh"))
    return dense("logits", dense("mlp", norm("encoder_norm", x)[:, 0]).relu())


def long_range_names(config) -> list[tuple]:
    """Our sinusoids have all sines first: the features of the stream change places."""
    block = r"encoderblock_(\d+)/"
    order = torch.cat((torch.arange(0, config.hidden_size, 2), torch.arange(1, config.hidden_size, 2)))
    attention = block + "LinearAttention_1/"
    rules = [
        ("Embed_0/embedding", "flowformer.embeddings.word_embeddings.weight", lambda x: x[:, order]),
        ("cls", "class_token", lambda x: x[..., order]),
        (attention + "out/kernel", LAYER + "attention.o_proj.weight", lambda x: x.flatten(0, 1).mT[order]),
        (block + "MlpBlock_3/Dense_0/kernel", LAYER + "mlp.fc1.weight", lambda x: x.mT[:, order]),
        (block + "MlpBlock_3/Dense_0/bias", LAYER + "mlp.fc1.bias"),
        (block + "MlpBlock_3/Dense_1/kernel", LAYER + "mlp.fc2.weight", lambda x: x.mT[order]),
        (block + "MlpBlock_3/Dense_1/bias", LAYER + "mlp.fc2.bias", lambda x: x[order]),
        ("mlp/kernel", "dense.weight", lambda x: x.mT[:, order]),
        ("mlp/bias", "dense.bias"),
        ("logits/kernel", "classifier.weight", lambda x: x.mT),
        ("logits/bias", "classifier.bias"),
    ]
    for name in ("query", "key", "value"):
        new = f"{LAYER}attention.{name[0]}_proj.weight"
        rules.append((attention + name + "/kernel", new, lambda x: x.flatten(1).mT[:, order]))
    norms = {block + "LayerNorm_0": LAYER + "attention_norm", block + "LayerNorm_2": LAYER + "mlp_norm"}
    for old, new in {**norms, "encoder_norm": "flowformer.norm"}.items():
        rules += [
            (f"{old}/scale", f"{new}.weight", lambda x: x[order]),
            (f"{old}/bias", f"{new}.bias", lambda x: x[order]),
        ]
    return rules


def language_layout(config) -> dict:
    width, inner = config.hidden_size, config.intermediate_size
    shapes = {"decoder.embed_tokens.weight": (config.vocab_size, width)}
    for block in (f"decoder.layers.{index}" for index in range(config.num_hidden_layers)):
        for name in ("q", "k", "v", "out"):
            shapes |= affine(f"{block}.self_attn.{name}_proj", width, width)
        shapes |= affine(f"{block}.self_attn_layer_norm", width) | affine(f"{block}.final_layer_norm", width)
        shapes |= affine(f"{block}.fc1", inner, width) | affine(f"{block}.fc2", width, inner)
    return shapes | affine("decoder.layer_norm", width)


def language_forward(w: Weights, config, input_ids: Tensor) -> Tensor:
    """The sinusoids are those of "Attention is all you need", which end one frequency later than fairseq's."""
    width = config.hidden_size
    angles = torch.arange(input_ids.shape[1], dtype=torch.float64)[:, None]
    angles = angles * 10000.0 ** -(torch.arange(width // 2, dtype=torch.float64) / (width // 2))
    x = w["decoder.embed_tokens.weight"][input_ids] * width**0.5 + torch.cat((angles.sin(), angles.cos()), dim=-1)
    for block in (f"decoder.layers.{index}" for index in range(config.num_hidden_layers)):
        y = w.norm(f"{block}.self_attn_layer_norm", x)
        inner = (w.linear(f"{block}.self_attn.{name}_proj", y) for name in "qkv")
        inner = flow(*inner, config.num_attention_heads, clamp=5.0, causal=True)
        x = x + w.linear(f"{block}.self_attn.out_proj", inner)
        inner = w.linear(f"{block}.fc1", w.norm(f"{block}.final_layer_norm", x)).relu()
        x = x + w.linear(f"{block}.fc2", inner)
    return w.norm("decoder.layer_norm", x) @ w["decoder.embed_tokens.weight"].T


def language_names(config) -> list[tuple]:
    block = r"decoder\.layers\.(\d+)\."
    parts = {"self_attn_layer_norm": "attention_norm", "final_layer_norm": "mlp_norm", "fc": "mlp.fc"}
    return [
        (r"decoder\.embed_tokens", "flowformer.embeddings.word_embeddings"),
        (block + r"self_attn\.(q|k|v|o)\w*", LAYER + r"attention.\2_proj"),
        *((block + old, LAYER + new) for old, new in parts.items()),
        (r"decoder\.layer_norm", "flowformer.norm"),
    ]


def trajectory_layout(config) -> dict:
    """`wte` and the predictions of states and returns are built, and read by neither loss nor decision."""
    width, inner, states, actions = config.hidden_size, config.intermediate_size, config.state_dim, config.act_dim
    shapes = {"transformer.wte.weight": (1, width)}
    for block in (f"transformer.h.{index}" for index in range(config.num_hidden_layers)):
        for name in ("query", "key", "value", "out"):
            shapes |= affine(f"{block}.attn.att.{name}_projection", width, width)
        shapes |= affine(f"{block}.ln_1", width) | affine(f"{block}.ln_2", width)
        shapes |= {f"{block}.mlp.c_fc.weight": (width, inner), f"{block}.mlp.c_fc.bias": (inner,)}
        shapes |= {f"{block}.mlp.c_proj.weight": (inner, width), f"{block}.mlp.c_proj.bias": (width,)}
    shapes |= affine("transformer.ln_f", width) | affine("embed_ln", width)
    shapes |= affine("embed_timestep", config.max_episode_length, width, bias=False)
    for name, size in {"return": 1, "state": states, "action": actions}.items():
        shapes |= affine(f"embed_{name}", width, size)
    shapes |= affine("predict_action.0", actions, width)
    return shapes | affine("predict_state", states, width) | affine("predict_return", 1, width)


def trajectory_forward(w: Weights, config, states, actions, returns_to_go, timesteps) -> Tensor:
    inputs = {"return": returns_to_go, "state": states, "action": actions}
    time = w["embed_timestep.weight"][timesteps]
    x = torch.stack([w.linear(f"embed_{name}", value) + time for name, value in inputs.items()], dim=2).flatten(1, 2)
    x = w.norm("embed_ln", x)
    for block in (f"transformer.h.{index}" for index in range(config.num_hidden_layers)):
        y, attention = w.norm(f"{block}.ln_1", x), f"{block}.attn.att"
        inner = (w.linear(f"{attention}.{name}_projection", y) for name in ("query", "key", "value"))
        inner = flow(*inner, config.num_attention_heads, clamp=10.0, causal=True)
        x = x + w.linear(f"{attention}.out_projection", inner)
        inner = w.norm(f"{block}.ln_2", x) @ w[f"{block}.mlp.c_fc.weight"] + w[f"{block}.mlp.c_fc.bias"]
        x = x + inner.relu() @ w[f"{block}.mlp.c_proj.weight"] + w[f"{block}.mlp.c_proj.bias"]
    return w.linear("predict_action.0", w.norm("transformer.ln_f", x)[:, 1::3]).tanh()


def trajectory_names(config) -> list[tuple]:
    block = r"transformer\.h\.(\d+)\."
    parts = {"ln_1": "attention_norm", "ln_2": "mlp_norm", r"mlp\.c_fc": "mlp.fc1", r"mlp\.c_proj": "mlp.fc2"}
    return [
        (r"transformer\.wte.*|predict_state.*|predict_return.*", None),
        (block + r"attn\.att\.(q|k|v|o)\w*_projection", LAYER + r"attention.\2_proj"),
        (block + r"mlp\.c_fc\.weight", LAYER + "mlp.fc1.weight", lambda x: x.mT),
        (block + r"mlp\.c_proj\.weight", LAYER + "mlp.fc2.weight", lambda x: x.mT),
        *((block + old, LAYER + new) for old, new in parts.items()),
        (r"transformer\.ln_f", "flowformer.norm"),
        ("embed_ln", "flowformer.embeddings.norm"),
        ("embed_", "flowformer.embeddings.embed_"),
        (r"predict_action\.0", "predict_action"),
    ]


def ids(length: int) -> dict:
    return {"input_ids": torch.randint(1, 11, (2, length))}


def trajectories() -> dict:
    shapes = {"states": (2, 5, 4), "actions": (2, 5, 3), "returns_to_go": (2, 5, 1)}
    inputs = {name: torch.randn(shape, dtype=torch.float64) for name, shape in shapes.items()}
    return {**inputs, "timesteps": torch.randint(0, 12, (2, 5))}


SMALL = {"hidden_size": 16, "num_attention_heads": 2, "intermediate_size": 24}
ATTENTION, MLP = "flowformer.layers.0.attention.q_proj.weight", "flowformer.layers.0.mlp.fc1.weight"
RELEASED = {
    "mnist_paper": Released(
        FlowformerForImageClassification,
        {"num_labels": 1000},
        {"hidden_sizes": [12, 24], "depths": [1, 2], "num_attention_heads": 3, "image_size": 16, "num_labels": 3},
        image_layout,
        image_names,
        43_311_304,
        0,
        image_forward,
        lambda: {"pixel_values": torch.randn(2, 3, 16, 16, dtype=torch.float64)},
        {ATTENTION: 0.02, MLP: 0.02, "flowformer.embeddings.position_embeddings": 0.02, "classifier.weight": 0.02},
    ),
    "japanese_vowels_paper": Released(
        FlowformerForTimeSeriesClassification,
        {"num_labels": 9, "num_input_channels": 12, "max_position_embeddings": 29},
        {**SMALL, "num_labels": 3, "num_input_channels": 5, "max_position_embeddings": 7},
        series_layout,
        series_names,
        6_460_937,
        0,
        series_forward,
        lambda: {"past_values": torch.randn(2, 7, 5, dtype=torch.float64)},
        {"flowformer.embeddings.positions.table.weight": 0.02 / 3**0.5},
    ),
    "list_ops_paper": Released(
        FlowformerForSequenceClassification,
        {"num_labels": 10},
        {**SMALL, "num_labels": 3, "classifier_hidden_size": 24},
        long_range_layout,
        long_range_names,
        2_646_026,
        0,
        long_range_forward,
        lambda: ids(9),
        {
            "flowformer.embeddings.word_embeddings.weight": 1.0 * (15 / 16) ** 0.5,  # the row of padding is zero
            "class_token": 0.0,
            ATTENTION: (2 / 1024) ** 0.5,
            MLP: (2 / 1536) ** 0.5,
        },
    ),
    "wikipedia_paper": Released(
        FlowformerForCausalLM,
        {"vocab_size": 267_744},
        {**SMALL, "vocab_size": 11},
        language_layout,
        language_names,
        156_000_256,
        0,
        language_forward,
        lambda: ids(9),
        {"flowformer.embeddings.word_embeddings.weight": 512**-0.5},
    ),
    "offline_rl_paper": Released(
        DecisionFlowformer,
        {"state_dim": 11, "act_dim": 3},
        {**SMALL, "state_dim": 4, "act_dim": 3, "max_episode_length": 12},
        trajectory_layout,
        trajectory_names,
        2_635_023,
        256 + 11 * 257 + 257,
        trajectory_forward,
        trajectories,
        {"flowformer.embeddings.embed_timestep.weight": 1.0},
    ),
}


def architecture(recipe: str, **fields) -> dict:
    return {**yaml.safe_load((RECIPES / f"{recipe}.yaml").read_text())["architecture"], **fields}


def convert(weights: dict[str, Tensor], rules: list[tuple]) -> dict[str, Tensor]:
    """Released weights under our names; the first rule that fits a name counts, all of its pattern's rules do."""
    converted = {}
    for name, tensor in weights.items():
        fitting = [rule for rule in rules if re.match(rule[0], name)]
        assert fitting, name
        for pattern, new, *change in (rule for rule in fitting if rule[0] == fitting[0][0]):
            if new is not None:
                converted[re.sub(pattern, new, name, count=1)] = change[0](tensor) if change else tensor
    return converted


def shapes_of(weights: dict[str, Tensor]) -> dict[str, tuple[int, ...]]:
    return {name: tuple(tensor.shape) for name, tensor in weights.items()}


@pytest.mark.parametrize("recipe", RELEASED)
def test_the_paper_recipe_has_the_parameters_of_the_released_model(recipe):
    released = RELEASED[recipe]
    config = new_config(architecture(recipe, **released.fields))
    with torch.device("meta"):
        model = released.head(config)
        weights = {name: torch.empty(shape) for name, shape in released.layout(config).items()}
        theirs = shapes_of(convert(weights, released.rules(config)))
    assert dict(theirs) == shapes_of(dict(model.named_parameters()))
    assert sum(weight.numel() for weight in weights.values()) == released.parameters
    assert model.num_parameters() == released.parameters - released.unread


@pytest.mark.parametrize("recipe", RELEASED)
def test_released_weights_give_the_released_outputs(recipe):
    released = RELEASED[recipe]
    torch.manual_seed(0)
    config = new_config(architecture(recipe, **released.tiny))
    weights = {n: 0.5 * torch.randn(shape, dtype=torch.float64) for n, shape in released.layout(config).items()}
    weights = Weights(weights)
    model = released.head(config).double().eval()
    missing, unexpected = model.load_state_dict(convert(weights, released.rules(config)), strict=False)
    assert set(missing) <= {"lm_head.weight"} and not unexpected
    inputs = released.inputs()
    outputs = model(**inputs)
    found = outputs.action_preds if "states" in inputs else outputs.logits
    torch.testing.assert_close(found, released.forward(weights, config, **inputs), atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("recipe", RELEASED)
def test_initial_weights_have_the_released_deviations(recipe):
    released = RELEASED[recipe]
    depth = {"depths": [1] * 4} if recipe == "mnist_paper" else {"num_hidden_layers": 1}
    torch.manual_seed(0)
    weights = released.head(new_config(architecture(recipe, **depth, vocab_size=16))).state_dict()
    for name, deviation in released.deviations.items():
        found = weights[name].double().square().mean().sqrt().item()
        assert found == pytest.approx(deviation, rel=0.05), name
