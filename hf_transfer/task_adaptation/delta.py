"""DELTA: the hidden states stay near the starting model's, channel by channel as each channel matters.

    loss = alpha/2 sum_layers E_x sum_c D w_c mean_t (h_tc(x) - h0_tc(x))^2 + beta/2 sum_head ||v||^2
    w = softmax over the channels of (the loss that losing channel c costs) / attention_temperature

t runs over the places of a map or the real tokens of a text. The factor D (channels) makes equal attention w = 1/D
the plain squared distance. The cost of losing a channel is measured before training on the labelled training set, to
first order: - E_x sum_t h_tc dL/dh_tc. The paper switches every channel off in turn, which for transformers is
thousands of passes over the data.

Paper: Li et al., "DELTA: DEep Learning Transfer using Feature Map with Attention for Convolutional Networks", ICLR
2019, https://huggingface.co/papers/1901.09229. alpha = beta = .01 and the temperature of 5 as in later releases.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.task_loss import ANY_PROBLEM, declared_problem_type
from hf_transfer.functional.environments import row_risks
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.model_anatomy import head_parameter_names
from hf_transfer.objective import Objective, View, no_loss
from hf_transfer.task_adaptation.first_pass import all_differentiable, evaluating, labelled_batches
from hf_transfer.task_adaptation.starting_point import named_parameters


class DELTA(Objective):
    """Attention-weighted distance of all hidden states from the starting model's.

    Args:
        alpha: strength on the hidden states, >= 0.
        beta: strength on the head's weights, >= 0.
        attention_temperature: how evenly channels are attended to; large is even.
        samples: how many labelled rows the attention is measured on.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the widths of the layers cannot be told.
    """

    paper = "1901.09229"
    tasks = ANY_PROBLEM
    needs = frozenset({"hidden_states", "teacher"})

    def __init__(
        self,
        alpha: float = 0.01,
        beta: float = 0.01,
        attention_temperature: float = 5.0,
        samples: int = 512,
        weight: float = 1.0,
    ):
        super().__init__(weight)
        require_non_negative(alpha=alpha, beta=beta)
        require_positive(attention_temperature=attention_temperature, samples=samples)
        self.alpha = alpha
        self.beta = beta
        self.attention_temperature = attention_temperature
        self.samples = samples

    def build(self, model: nn.Module, feature_dim: int, num_labels: int) -> None:
        self.head_names = head_parameter_names(model)
        widths = layer_widths(model)
        self.attention = nn.Module()
        self.num_layers = len(widths)
        for layer, width in enumerate(widths):
            self.attention.register_buffer(str(layer), torch.full((width,), 1.0 / width))

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure the channels' attention on the first `samples` labelled rows."""
        costs = [torch.zeros_like(self.attention.get_buffer(str(layer))) for layer in range(self.num_layers)]
        rows = 0
        with evaluating(model), all_differentiable(model):
            for inputs, labels in labelled_batches(dataloader, model.device):
                first = slice(self.samples - rows)
                inputs, labels = {name: value[first] for name, value in inputs.items()}, labels[first]
                outputs = model(**inputs, output_hidden_states=True)
                loss = row_risks(outputs.logits.float(), labels, declared_problem_type(model.config)).sum()
                gradients = torch.autograd.grad(loss, outputs.hidden_states, allow_unused=True)
                for cost, state, gradient in zip(costs, outputs.hidden_states, gradients, strict=True):
                    if gradient is not None:
                        cost.sub_(channels_last(state.detach() * gradient).sum(dim=(0, 1)))
                rows += len(labels)
                if rows == self.samples:
                    break
        for layer, cost in enumerate(costs):
            attention = (cost / max(1, rows) / self.attention_temperature).softmax(dim=0)
            self.attention.get_buffer(str(layer)).copy_(attention)

    def forward(self, view: View) -> Tensor:
        mask = view.inputs.get("attention_mask")
        loss = no_loss(view)
        for layer, (state, start) in enumerate(zip(view.hidden_states, view.teacher.hidden_states, strict=True)):
            attention = self.attention.get_buffer(str(layer))
            distance = mean_over_places(channels_last(state.float() - start.float()).square(), mask)  # [B, D]
            loss = loss + self.alpha / 2 * len(attention) * (distance @ attention).mean()
        for parameter in named_parameters(view.model, self.head_names).values():
            loss = loss + self.beta / 2 * parameter.square().sum()
        return loss


def layer_widths(model: nn.Module) -> list[int]:
    """Channels of every entry of `hidden_states`: the embeddings' and each layer's or stage's.

    Raises:
        ValueError: the config names neither `hidden_sizes` nor `hidden_size` and `num_hidden_layers`, and the model
            reads no pictures, of which a blank one would tell.
    """
    config = model.config
    stages = getattr(config, "hidden_sizes", None)
    if stages:
        return [getattr(config, "embedding_size", stages[0]), *stages]
    width, depth = getattr(config, "hidden_size", None), getattr(config, "num_hidden_layers", None)
    if width is not None and depth is not None:
        return [width] * (depth + 1)
    size = getattr(config, "image_size", None)
    if getattr(model, "main_input_name", None) == "pixel_values" and size is not None:
        return widths_of_maps(model, (size, size) if isinstance(size, int) else tuple(size))
    raise ValueError(
        f"DELTA needs the widths of all layers and {type(config).__name__} has neither `hidden_sizes` nor "
        "`hidden_size` and `num_hidden_layers`."
    )


@torch.no_grad()
def widths_of_maps(model: nn.Module, size: tuple[int, int]) -> list[int]:
    """Channels of every entry of `hidden_states`, from one blank picture."""
    weight = next(model.parameters())
    picture = torch.zeros(1, model.config.num_channels, *size, device=weight.device, dtype=weight.dtype)
    with evaluating(model):
        states = model(pixel_values=picture, output_hidden_states=True).hidden_states
    return [channels_last(state).shape[-1] for state in states]


def channels_last(state: Tensor) -> Tensor:
    """[B, T, D], from tokens [B, T, D] or a map [B, D, H, W]."""
    return state if state.ndim == 3 else state.flatten(start_dim=2).transpose(1, 2)


def mean_over_places(values: Tensor, mask: Tensor | None) -> Tensor:
    """Mean of [B, T, D] over the places, [B, D]; over the real tokens where a mask [B, T] fits."""
    if mask is None or mask.shape != values.shape[:2]:
        return values.mean(dim=1)
    kept = mask.to(values.dtype).unsqueeze(2)
    return (values * kept).sum(dim=1) / kept.sum(dim=1).clamp_min(1.0)
