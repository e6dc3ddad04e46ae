"""Flowformer for offline reinforcement learning: actions from states, past actions and the return still wanted."""

from dataclasses import dataclass

from torch import Tensor, nn
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel


@dataclass
class DecisionFlowformerOutput(ModelOutput):
    """`action_preds` [B, T, act_dim]: actions, or logits with `discrete_actions`; `loss` where labels are given."""

    loss: Tensor | None = None
    action_preds: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class DecisionFlowformer(FlowformerPreTrainedModel):
    """Predicts each action from the return wanted, the states and the actions so far; always causal.

        loss = mean over real steps of |a - predicted a|^2, or cross-entropy for discrete actions

    Discrete actions are given one-hot. At the step to decide, give zeros as its action: it cannot be seen.

    Paper: Chen et al., NeurIPS 2021, https://huggingface.co/papers/2106.01345; with flow attention Wu et al., 2022.
    """

    required_modality = "trajectory"
    always_causal = True
    main_input_name = "states"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(self.config)
        self.predict_action = nn.Linear(config.hidden_size, config.act_dim)
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
        outputs = self.flowformer(
            states=states,
            actions=actions,
            returns_to_go=returns_to_go,
            timesteps=timesteps,
            attention_mask=attention_mask,
            **kwargs,
        )
        # tokens come as return, state, action: the state's token has seen all that the action may depend on
        prediction = self.predict_action(outputs.last_hidden_state[:, 1::3])
        if self.config.action_tanh and not self.config.discrete_actions:
            prediction = prediction.tanh()
        loss = None if labels is None else self._loss(prediction, labels, attention_mask)
        return DecisionFlowformerOutput(
            loss=loss, action_preds=prediction, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def loss_items(self, states: Tensor, attention_mask: Tensor | None = None, **_: Tensor) -> Tensor:
        """Number of real steps of a batch, over which the loss is a mean, a scalar."""
        return states.new_ones(states.shape[:2]).sum() if attention_mask is None else attention_mask.sum()

    def _loss(self, prediction: Tensor, labels: Tensor, attention_mask: Tensor | None) -> Tensor:
        if labels.shape != prediction.shape:
            raise ValueError(f"`labels` should be of shape {tuple(prediction.shape)}, got {tuple(labels.shape)}.")
        labels = labels.to(prediction.dtype)
        if self.config.discrete_actions:
            error = nn.functional.cross_entropy(prediction.transpose(1, 2), labels.transpose(1, 2), reduction="none")
        else:
            error = ((prediction - labels) ** 2).mean(-1)
        if attention_mask is None:
            return error.mean()
        weight = attention_mask.to(error.dtype)
        return (error * weight).sum() / weight.sum().clamp(min=1)


__all__ = ["DecisionFlowformer"]
