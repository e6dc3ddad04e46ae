"""DELTA: the hidden states stay near the starting model's, channel by channel as each channel matters.

    loss = alpha/2 sum_layers E_x sum_c D w_c mean_t (h_tc(x) - h0_tc(x))^2 + beta/2 sum_head ||v||^2
    w = softmax over the channels of z / attention_temperature,   z = (cost - mean cost) / deviation of the costs

t runs over the places of a map or the real tokens of a text. The factor D (channels) makes equal attention w = 1/D
the plain squared distance. The cost of a channel is what losing it adds to the loss of a linear classifier that is
first fitted on the frozen features; it is measured before training, to second order (`channel_attention`). The paper
switches every channel off in turn, which for transformers is thousands of passes over the data.

Paper: Li et al., "DELTA: DEep Learning Transfer using Feature Map with Attention for Convolutional Networks", ICLR
2019, https://huggingface.co/papers/1901.09229. beta = .01, the temperature of 5 and the standardised costs as in later
releases. These sum over a batch of 48 rows with alpha = .01, at four layers of a ResNet. Here it is the mean over the
rows, so that neither the size of a batch nor the number of processes changes its strength, and alpha = .01 of it is a
48th of theirs. Theirs, .48, holds all layers of a small transformer too tightly: with 33 verses a kind and a MiniLM
the accuracy is 41.0, 39.0 and 31.0 % at .01, .1 and .48, and 38.7 % without; with 10 digits a class and a Flowformer
90.6, 88.2 and 84.4 %, and 91.2 % without (one seed each).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import torch
from torch import Tensor, nn

from hf_transfer.core.objective import BuildContext, Objective, View, no_loss
from hf_transfer.core.task_loss import ANY_PROBLEM
from hf_transfer.functional.keyword_checks import require_non_negative, require_positive
from hf_transfer.modeling.anatomy import head_parameter_names
from hf_transfer.modeling.readouts import mean_state
from hf_transfer.task_adaptation.channel_attention import channel_costs, channels_last
from hf_transfer.task_adaptation.first_pass import evaluating
from hf_transfer.task_adaptation.starting_point import named_parameters


class DELTA(Objective):
    """Attention-weighted distance of all hidden states from the starting model's.

    Args:
        alpha: strength on the hidden states, >= 0; what code that sums over its batch has, times its batch size.
        beta: strength on the head's weights, >= 0.
        attention_temperature: how evenly channels are attended to; large is even.
        samples: how many labelled rows the attention is measured on.
        weight: factor of this term in the training loss.

    Raises:
        ValueError: a keyword is out of its range; at `build`, the widths of the layers cannot be told.
    """

    paper = "1901.09229"
    tasks = ANY_PROBLEM
    needs = frozenset({"inputs", "hidden_states", "teacher"})

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

    def build(self, context: BuildContext) -> None:
        context.require_rows("DELTA")
        self.head_names = head_parameter_names(context.model)
        widths = layer_widths(context.model)
        self.attention = nn.Module()
        self.num_layers = len(widths)
        for layer, width in enumerate(widths):
            self.attention.register_buffer(str(layer), torch.full((width,), 1.0 / width))

    def prepare(self, model: nn.Module, dataloader: Iterable[Mapping[str, Tensor]]) -> None:
        """Measure the channels' attention on the first `samples` labelled rows."""
        for layer, cost in enumerate(channel_costs(model, dataloader, self.samples)):
            spread = cost.std(correction=0)
            # Where the loss reads no channel of a layer all costs are 0, and all channels matter alike.
            standardised = (cost - cost.mean()) / spread if spread > 0 else torch.zeros_like(cost)
            attention = (standardised / self.attention_temperature).softmax(dim=0)
            self.attention.get_buffer(str(layer)).copy_(attention)

    def forward(self, view: View) -> Tensor:
        mask = view.inputs.get("attention_mask")
        loss = no_loss(view)
        for layer, (state, start) in enumerate(zip(view.hidden_states, view.teacher.hidden_states, strict=True)):
            attention = self.attention.get_buffer(str(layer))
            distance = mean_state(channels_last(state.float() - start.float()).square(), mask)  # [B, D]
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
