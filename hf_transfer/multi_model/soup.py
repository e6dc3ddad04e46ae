"""Soups: the average of the weights of fine-tuned models of one architecture, which costs what one model costs.

    theta = (1/|S|) sum_{k in S} theta_k

The uniform soup takes all models. The greedy soup goes through them from the best one on, by a score on held-out rows,
and keeps a model in S where the score of the average does not fall.

Moving statistics of batch norms are averaged too; those of the averaged weights differ a little, and a pass over the
training rows would measure them.

Paper: Wortsman et al., "Model soups", ICML 2022, https://huggingface.co/papers/2203.05482.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from transformers import PreTrainedModel

from hf_transfer.multi_model.members import load_member, match_labels


@dataclass(frozen=True)
class Soup:
    """An averaged model.

    Args:
        model: with the averaged weights.
        kept: places of the models in it, in the order in which they joined.
        score: of the average; None where nothing was measured.
        scores: of every model alone, by its place.
    """

    model: PreTrainedModel
    kept: tuple[int, ...]
    score: float | None = None
    scores: tuple[float, ...] = ()


def uniform_soup(models: Sequence[str | PreTrainedModel], weights: Sequence[float] | None = None) -> Soup:
    """The average of all models, by shares of `weights` where they are given.

    Args:
        models: of one architecture, or their folders, which are loaded one at a time.
        weights: one a model, positive.

    Raises:
        ValueError: no model, weights that are not theirs, or tensors of other names or shapes.
    """
    weights = [1.0] * len(models) if weights is None else list(weights)
    if not models or len(weights) != len(models) or not all(one > 0 for one in weights):
        raise ValueError(
            f"a soup needs a positive weight for each of {len(models)} models, at least one; got {weights}."
        )
    first = loaded(models[0])
    total = {name: value * weights[0] for name, value in in_float32(first.state_dict()).items()}
    for place, weight in enumerate(weights[1:], start=1):
        add(total, loaded(models[place], first).state_dict(), weight, place)
    return Soup(with_weights(first, total, sum(weights)), tuple(range(len(models))))


def greedy_soup(models: Sequence[str | PreTrainedModel], score: Callable[[PreTrainedModel], float]) -> Soup:
    """The average of the models that do not make it worse.

    Args:
        models: of one architecture, or their folders, which are loaded one at a time.
        score: of a model on held-out rows, higher is better.

    Raises:
        ValueError: no model, or tensors of other names or shapes.
    """
    if not models:
        raise ValueError("a soup needs at least one model, got none.")
    reference = loaded(models[0])
    scores = [float(score(loaded(source, reference).eval())) for source in models]
    order = sorted(range(len(models)), key=lambda place: -scores[place])
    best, first = scores[order[0]], loaded(models[order[0]], reference)
    total, kept = in_float32(first.state_dict()), [order[0]]
    for place in order[1:]:
        trial = {name: value.clone() for name, value in total.items()}
        add(trial, loaded(models[place], reference).state_dict(), 1.0, place)
        value = float(score(with_weights(first, trial, len(kept) + 1).eval()))
        if value >= best:
            best, total = value, trial
            kept.append(place)
    return Soup(with_weights(first, total, len(kept)), tuple(kept), best, tuple(scores))


def loaded(source: str | PreTrainedModel, first: PreTrainedModel | None = None) -> PreTrainedModel:
    """A model, or that of a folder; a copy where its classes are those of the first in another order.

    Raises:
        ValueError: it cannot be loaded, or has classes of other names than the first.
    """
    model = load_member(source, "models", with_head=False) if isinstance(source, str) else source
    if first is None or model.config.num_labels != first.config.num_labels:  # told by the shapes of the heads
        return model
    if model.config.id2label == first.config.id2label:
        return model
    name = f"`{source}`" if isinstance(source, str) else f"a {type(model).__name__}"
    model = model if isinstance(source, str) else copy.deepcopy(model)
    match_labels(model, name, first, "the first model")
    return model


def in_float32(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Copies of the tensors; floating ones in float32, so that sums of narrow ones are exact enough."""
    return {
        name: value.float().clone() if value.is_floating_point() else value.clone() for name, value in state.items()
    }


def check_same(one: Mapping[str, Tensor], other: Mapping[str, Tensor], index: int) -> None:
    """Refuse tensors of model `index` that have other names or shapes than the first model's.

    Raises:
        ValueError: the first that differs is named.
    """
    for name in (*one, *other):
        shapes = [list(each[name].shape) if name in each else None for each in (one, other)]
        if shapes[0] != shapes[1]:
            ours, theirs = ("no such tensor" if shape is None else f"shape {shape}" for shape in shapes)
            raise ValueError(
                f"weights can be averaged of models of one architecture and sizes: `{name}` has {ours} in the first "
                f"model and {theirs} in model {index}."
            )


def add(total: dict[str, Tensor], state: Mapping[str, Tensor], weight: float, index: int) -> None:
    """total <- total + weight * state, in place; tensors of whole numbers stay the first model's.

    Raises:
        ValueError: as `check_same`.
    """
    check_same(total, state, index)
    for name, value in total.items():
        if value.is_floating_point():
            value.add_(state[name].float().to(value.device), alpha=weight)


@torch.no_grad()
def with_weights(model: PreTrainedModel, total: Mapping[str, Tensor], count: float) -> PreTrainedModel:
    """A copy of the model with the summed weights over their count."""
    made = copy.deepcopy(model)
    mean = {name: value / count if value.is_floating_point() else value for name, value in total.items()}
    made.load_state_dict({name: value.to(made.state_dict()[name].dtype) for name, value in mean.items()})
    return made
