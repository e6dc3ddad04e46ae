"""Flowformer for series and trajectories without labels: hidden steps, or the next step from those before."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .heads_trajectory import DecisionFlowformer, DecisionFlowformerOutput
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel


@dataclass
class FlowformerSeriesPretrainingOutput(ModelOutput):
    """Mean squared error and the predicted values `logits` [B, T, C], of each step or of the one behind it."""

    loss: Tensor | None = None
    logits: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class FlowformerForTimeSeriesPretraining(FlowformerPreTrainedModel):
    """Predicts the values of hidden steps from all others or, when causal, those of the next step from all before.

        hidden steps:  loss = mean over hidden real steps t of |x_t - xhat_t|^2 / C
        causal:        loss = mean over real steps t + 1 of |x_t+1 - xhat_t|^2 / C

    A learned token stands in for a hidden step. Without `hidden_steps` a model that is not causal has no loss.

    Papers: Zerveas et al., KDD 2021, https://huggingface.co/papers/2010.02803, for hidden steps of series.
    """

    required_modality = "time_series"
    main_input_name = "past_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(config)
        self.mask_token = nn.Parameter(torch.zeros(1, 1, config.stages[0]["hidden_size"]))
        self.predict = nn.Linear(config.hidden_size, config.num_input_channels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.normal_(self.mask_token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        past_values: Tensor | None = None,  # [B, T, C]
        attention_mask: Tensor | None = None,  # [B, T], 1 = real step
        hidden_steps: Tensor | None = None,  # [B, T], 1 = to be predicted
        **kwargs,
    ) -> FlowformerSeriesPretrainingOutput:
        embeddings = self.flowformer.embeddings
        shape, _ = embeddings.sequence_shape(past_values=past_values)
        for name, mask in (("attention_mask", attention_mask), ("hidden_steps", hidden_steps)):
            if mask is not None and mask.shape != shape:
                raise ValueError(f"`{name}` should be of shape {tuple(shape)}, got {tuple(mask.shape)}.")
        real = None if attention_mask is None else attention_mask.bool()
        tokens = embeddings.project(past_values, real)
        if hidden_steps is not None:
            tokens = torch.where(hidden_steps.bool()[..., None], self.mask_token.to(tokens.dtype), tokens)
        outputs = self.flowformer(
            inputs_embeds=tokens, attention_mask=attention_mask, one_document_a_row=True, **kwargs
        )
        prediction = self.predict(outputs.last_hidden_state)
        return FlowformerSeriesPretrainingOutput(
            loss=self._loss(prediction, past_values, real, hidden_steps),
            logits=prediction,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def loss_items(
        self,
        past_values: Tensor,
        attention_mask: Tensor | None = None,
        hidden_steps: Tensor | None = None,
        **_: Tensor,
    ) -> Tensor:
        """Number of steps of a batch whose errors the loss is the mean of, a scalar."""
        real = real_steps(past_values, attention_mask)
        return (with_next(real) if hidden_steps is None else hidden_steps.bool() & real).sum()

    def _loss(
        self, prediction: Tensor, values: Tensor, real: Tensor | None, hidden_steps: Tensor | None
    ) -> Tensor | None:
        if hidden_steps is not None:
            counted = hidden_steps.bool() if real is None else hidden_steps.bool() & real
            return mean_squared_error(prediction, values, counted)
        if not self.config.is_causal:
            return None
        return next_step_error(prediction, values, real_steps(values, real))


class FlowformerForTrajectoryPretraining(DecisionFlowformer):
    """Predicts each action from the steps before and the present state, and each next state from the action too.

        loss = mean over real steps t of |a_t - ahat_t|^2 / A + |s_t+1 - shat_t|^2 / S

    The second term of a step without a next one is 0. Cross-entropy takes the place of the first for discrete actions.
    `DecisionFlowformer` loads such a folder.

    Papers: the model as in Chen et al., NeurIPS 2021, https://huggingface.co/papers/2106.01345; next states beside
    actions as in Janner et al., NeurIPS 2021, https://huggingface.co/papers/2106.02039, there token by token.
    """

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.predict_state = nn.Linear(config.hidden_size, config.state_dim)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        states: Tensor | None = None,  # [B, T, state_dim]
        actions: Tensor | None = None,  # [B, T, act_dim]
        returns_to_go: Tensor | None = None,  # [B, T, 1]
        timesteps: Tensor | None = None,  # [B, T]
        attention_mask: Tensor | None = None,  # [B, T], 1 = real step
        labels: Tensor | None = None,  # [B, T, act_dim], the actions to learn
        **kwargs,
    ) -> DecisionFlowformerOutput:
        inputs = {"states": states, "actions": actions, "returns_to_go": returns_to_go, "timesteps": timesteps}
        outputs = self.flowformer(**inputs, attention_mask=attention_mask, **kwargs)
        # tokens come as return, state, action: an action follows from what its state's token saw, the next state from
        # what the action's token saw
        prediction = self.predict_action(outputs.last_hidden_state[:, 1::3])
        if self.config.action_tanh and not self.config.discrete_actions:
            prediction = prediction.tanh()
        loss = None
        if labels is not None:
            real = real_steps(states, attention_mask)
            next_states = self.predict_state(outputs.last_hidden_state[:, 2::3])
            # both terms are means over the same steps, so that batches are joined by one number
            share = with_next(real).sum() / real.sum().clamp(min=1)
            loss = self._loss(prediction, labels, attention_mask) + share * next_step_error(next_states, states, real)
        return DecisionFlowformerOutput(
            loss=loss, action_preds=prediction, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


def real_steps(values: Tensor, attention_mask: Tensor | None) -> Tensor:
    """Which steps of values [B, T, C] are no padding, [B, T] bool."""
    return values.new_ones(values.shape[:2], dtype=torch.bool) if attention_mask is None else attention_mask.bool()


def with_next(real: Tensor) -> Tensor:
    """Of real steps [B, T] those that are followed by one, [B, T - 1]."""
    return real[:, 1:] & real[:, :-1]


def next_step_error(prediction: Tensor, values: Tensor, real: Tensor) -> Tensor:
    """Mean squared error of each step's prediction [B, T, C] of the values [B, T, C] behind it, a scalar."""
    return mean_squared_error(prediction[:, :-1], values[:, 1:], with_next(real))


def mean_squared_error(prediction: Tensor, values: Tensor, counted: Tensor) -> Tensor:
    """Over the steps [B, T] that count and all channels, a scalar; 0 where none counts."""
    # what does not count may hold anything, and 0 times NaN would be NaN
    difference = (prediction - values.to(prediction.dtype)).masked_fill(~counted[..., None], 0)
    return difference.square().sum() / (counted.sum() * values.shape[-1]).clamp(min=1)


__all__ = ["FlowformerForTimeSeriesPretraining", "FlowformerForTrajectoryPretraining"]
