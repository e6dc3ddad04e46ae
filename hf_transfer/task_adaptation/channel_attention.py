"""How much each channel of each hidden state matters for a task: what its loss would cost a trained classifier.

    cost_c = mean over rows of [ - s_c + 1/2 E r_c^2 ],   s_c = sum_t h_tc dL/dh_tc,   r_c = sum_t h_tc d(v . z)/dh_tc

It is the loss without the channel minus the loss with it, to second order, where z are the logits and v random with
E v v^T = d^2 L / dz^2, so that E r_c^2 is the Gauss-Newton second derivative. The first order alone says nothing: it
vanishes where the classifier is at its optimum. On 64 verses and a MiniLM the costs of the channels of the last two
layers have a rank correlation of 1.0 with those of switching each channel off, those of the layer below one of .83.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.task_loss import (
    MULTI_LABEL,
    SINGLE_LABEL,
    problem_type_of,
    row_losses,
)
from hf_transfer.modeling.anatomy import HeadInput
from hf_transfer.task_adaptation.first_pass import all_differentiable, evaluating, labelled_batches

RIDGE = 0.01
"""Weight decay of the classifier, on features of unit spread: with few rows they could be told apart exactly."""
FITTING_STEPS = 200
PROBES = 4
"""How many v are drawn for every row, a backward pass each."""


def channel_costs(
    model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]], samples: int, seed: int = 0
) -> list[Tensor]:
    """The cost of losing each channel, [D_l] float64 for every entry of the model's `hidden_states`.

    A linear classifier on the frozen features takes the place of the model's own head, which at the start is random.

    Args:
        model: a Hugging Face model with a linear head.
        dataloader: batches of model inputs and labels; it is gone through twice.
        samples: how many labelled rows are read.
        seed: of the random v.

    Raises:
        ValueError: no row has a label.
    """
    head = HeadInput(model)
    with evaluating(model):
        with torch.no_grad():
            features, labels = _features(model, head, dataloader, samples)
        problem_type = problem_type_of(model.config, labels)
        weight, bias = fitted_classifier(features, labels, problem_type, model.config.num_labels)
        # Drawn for all rows at once, so that the size of the batches does not matter.
        signs = random_signs((len(labels), PROBES, len(bias)), seed).to(features)
        costs: list[Tensor | float] = []
        with all_differentiable(model):
            for inputs, answers in _first_rows(dataloader, model.device, samples):
                with head:
                    outputs = model(**inputs, output_hidden_states=True)
                read = head.take(outputs.logits, inputs.get("attention_mask")).double()
                logits, states = read @ weight.T + bias, outputs.hidden_states
                own, signs = signs[: len(answers)], signs[len(answers) :]
                costs = costs or [0.0] * len(states)
                for layer, s in enumerate(_effects(row_losses(logits, answers, problem_type).sum(), states)):
                    costs[layer] = costs[layer] - s.sum(dim=0) / len(labels)
                for probe in range(PROBES):
                    v = curvature_probe(logits.detach(), problem_type, own[:, probe])
                    for layer, r in enumerate(_effects((v * logits).sum(), states)):
                        costs[layer] = costs[layer] + r.square().sum(dim=0) / (2 * PROBES * len(labels))
    return costs


def fitted_classifier(features: Tensor, labels: Tensor, problem_type: str, outputs: int) -> tuple[Tensor, Tensor]:
    """Weight [C, D] and bias [C] of the linear model of least task loss plus RIDGE / 2 ||w||^2, in float64.

    Args:
        features: [N, D].
        labels: [N] or [N, C].
        problem_type: one of `PROBLEM_TYPES`.
        outputs: C.
    """
    mean, spread = features.mean(dim=0), features.std(correction=0).clamp_min(1e-12)
    scaled = (features - mean) / spread
    weight = scaled.new_zeros(outputs, scaled.shape[1]).requires_grad_()
    bias = scaled.new_zeros(outputs).requires_grad_()
    optimizer = torch.optim.LBFGS([weight, bias], max_iter=FITTING_STEPS, line_search_fn="strong_wolfe")

    def loss() -> Tensor:
        optimizer.zero_grad()
        value = row_losses(scaled @ weight.T + bias, labels, problem_type).mean() + RIDGE / 2 * weight.square().sum()
        value.backward()
        return value

    with torch.enable_grad():
        optimizer.step(loss)
    unscaled = weight.detach() / spread
    return unscaled, bias.detach() - unscaled @ mean


def random_signs(shape: tuple[int, ...], seed: int) -> Tensor:
    """1 or -1, each as likely."""
    return torch.randint(2, shape, generator=torch.Generator().manual_seed(seed)) * 2 - 1


def curvature_probe(logits: Tensor, problem_type: str, signs: Tensor) -> Tensor:
    """Random v [B, C] with E v v^T = the second derivative of a row's loss by its logits [B, C].

    That is diag(p) - p p^T for classes, diag(p (1 - p)) / C for several labels and 2 I / C for numbers.

    Args:
        logits: [B, C].
        problem_type: one of `PROBLEM_TYPES`.
        signs: [B, C] of 1 and -1, the randomness.
    """
    if problem_type == SINGLE_LABEL:
        p = logits.softmax(dim=1)
        noise = p.sqrt() * signs
        return noise - p * noise.sum(dim=1, keepdim=True)
    p = logits.sigmoid()
    variance = p * (1 - p) if problem_type == MULTI_LABEL else torch.full_like(logits, 2.0)
    return (variance / logits.shape[1]).sqrt() * signs


def channels_last(state: Tensor) -> Tensor:
    """[B, T, D], from tokens [B, T, D] or a map [B, D, H, W]."""
    return state if state.ndim == 3 else state.flatten(start_dim=2).transpose(1, 2)


def _effects(loss: Tensor, states: tuple[Tensor, ...]) -> list[Tensor]:
    """sum_t h_tc dL/dh_tc of every row and channel, [B, D] float64 for each state; 0 where the loss reads none."""
    gradients = torch.autograd.grad(loss, states, retain_graph=True, allow_unused=True)
    return [
        channels_last(state.detach().double() * (0.0 if gradient is None else gradient)).sum(dim=1)
        for state, gradient in zip(states, gradients, strict=True)
    ]


def _first_rows(
    dataloader: Iterable[Mapping[str, Tensor]], device: torch.device, samples: int
) -> Iterator[tuple[dict[str, Tensor], Tensor]]:
    """(model inputs, labels) of the first labelled rows."""
    remaining = samples
    for inputs, labels in labelled_batches(dataloader, device):
        yield {name: value[:remaining] for name, value in inputs.items()}, labels[:remaining]
        remaining -= len(labels)
        if remaining <= 0:
            return


def _features(
    model: nn.Module, head: HeadInput, dataloader: Iterable[Mapping[str, Tensor]], samples: int
) -> tuple[Tensor, Tensor]:
    """Features [N, D] float64 and labels of the first labelled rows."""
    features, labels = [], []
    for inputs, answers in _first_rows(dataloader, model.device, samples):
        with head:
            logits = model(**inputs).logits
        features.append(head.take(logits, inputs.get("attention_mask")).double())
        labels.append(answers)
    if not labels:
        raise ValueError("there is no labelled row to measure the channels' attention on.")
    return torch.cat(features), torch.cat(labels)
