"""Flowformer for multivariate time series: classification and prediction."""

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from transformers import initialization as init
from transformers.activations import ACT2FN
from transformers.modeling_outputs import SequenceClassifierOutput
from transformers.utils import ModelOutput
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel
from .pooling_flowformer import classifier_dropout, pool


class FlowformerForTimeSeriesClassification(FlowformerPreTrainedModel):
    """Pools the steps (`config.pooling`), then dropout and one linear layer, `classifier`.

    With `pooling="flatten"`, the paper's UEA setting, the classifier reads activation(hidden states) of all
    `max_position_embeddings` steps in a row, padding zeroed.
    """

    required_modality = "time_series"
    main_input_name = "past_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.loss_type = "ForSequenceClassification"
        self.num_labels = config.num_labels
        self.flowformer = FlowformerModel(config)
        self.activation = ACT2FN[config.hidden_act]
        self.dropout = classifier_dropout(config)
        steps = config.max_position_embeddings if config.pooling == "flatten" else 1
        self.classifier = nn.Linear(steps * config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        past_values: Tensor | None = None,  # [B, T, C]
        attention_mask: Tensor | None = None,  # [B, T], 1 = real step
        labels: Tensor | None = None,  # [B]
        **kwargs,
    ) -> SequenceClassifierOutput:
        outputs = self.flowformer(
            past_values=past_values, attention_mask=attention_mask, one_document_a_row=True, **kwargs
        )
        if self.config.pooling == "flatten":
            pooled = self._flatten(self.dropout(self.activation(outputs.last_hidden_state)), attention_mask)
        else:
            pooled = self.dropout(pool(outputs.last_hidden_state, attention_mask, self.config.pooling))
        logits = self.classifier(pooled)
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _flatten(self, hidden_states: Tensor, attention_mask: Tensor | None) -> Tensor:
        """[B, T, D] -> [B, max_position_embeddings * D], zero where there is no real step; each row from its first."""
        missing = self.config.max_position_embeddings - hidden_states.shape[1]
        if missing < 0:
            raise ValueError(
                f"`pooling='flatten'` takes series of at most `max_position_embeddings="
                f"{self.config.max_position_embeddings}` steps, got {hidden_states.shape[1]}."
            )
        if attention_mask is not None:
            mask = attention_mask.to(hidden_states.device).bool()
            hidden_states = hidden_states.masked_fill(~mask[..., None], 0)
            # padding in front would move the steps to the weights of later ones
            steps = torch.arange(mask.shape[1], device=mask.device)
            steps = (steps + mask.long().argmax(1, keepdim=True)) % mask.shape[1]
            hidden_states = hidden_states.gather(1, steps[..., None].expand_as(hidden_states))
        return nn.functional.pad(hidden_states, (0, 0, 0, missing)).flatten(1)


@dataclass
class FlowformerTimeSeriesPredictionOutput(ModelOutput):
    """Mean squared error and the predicted future `prediction_outputs` [B, prediction_length, C]."""

    loss: Tensor | None = None
    prediction_outputs: Tensor | None = None
    hidden_states: tuple[Tensor, ...] | None = None
    attentions: tuple[Tensor, ...] | None = None


class FlowformerForTimeSeriesPrediction(FlowformerPreTrainedModel):
    """Reads the past with `prediction_length` learned tokens behind it, which become the future steps.

    With `scale_inputs` every channel of every series is standardised by its own past first, and the prediction is
    scaled back (Kim et al., ICLR 2022, reversible instance normalisation without its learned factors).
    """

    required_modality = "time_series"
    main_input_name = "past_values"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(config)
        self.future_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size))
        self.predict = nn.Linear(config.hidden_size, config.num_input_channels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self:
            init.normal_(self.future_token, std=self.config.initializer_range)

    @can_return_tuple
    def forward(
        self,
        past_values: Tensor | None = None,  # [B, T, C]
        attention_mask: Tensor | None = None,  # [B, T], 1 = real step
        future_values: Tensor | None = None,  # [B, prediction_length, C]
        **kwargs,
    ) -> FlowformerTimeSeriesPredictionOutput:
        embeddings = self.flowformer.embeddings
        shape, _ = embeddings.sequence_shape(past_values=past_values)
        if 0 in shape:
            raise ValueError(f"The past is empty: got `past_values` of shape {tuple(past_values.shape)}.")
        if attention_mask is not None and attention_mask.shape != shape:
            raise ValueError(f"`attention_mask` should be of shape {tuple(shape)}, got {tuple(attention_mask.shape)}.")
        mask = None if attention_mask is None else attention_mask.bool()
        location, scale = self._location_and_scale(past_values, mask)
        tokens = embeddings.project((past_values - location) / scale, mask)
        length = self.config.prediction_length
        tokens = torch.cat((tokens, self.future_token.expand(tokens.shape[0], length, -1)), dim=1)
        if mask is not None:
            mask = torch.cat((mask, mask.new_ones(mask.shape[0], length)), dim=1)
        outputs = self.flowformer(inputs_embeds=tokens, attention_mask=mask, one_document_a_row=True, **kwargs)
        prediction = self.predict(outputs.last_hidden_state[:, -length:])
        loss = None
        if future_values is not None:
            if future_values.shape != prediction.shape:
                raise ValueError(
                    f"`future_values` should be of shape {tuple(prediction.shape)}, got {tuple(future_values.shape)}."
                )
            # in units of the past, so that no series outweighs the others
            loss = nn.functional.mse_loss(prediction, ((future_values - location) / scale).to(prediction.dtype))
        return FlowformerTimeSeriesPredictionOutput(
            loss=loss,
            prediction_outputs=prediction * scale + location,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )

    def _location_and_scale(self, past_values: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """Mean and deviation [B, 1, C] of the real steps of each channel."""
        if not self.config.scale_inputs:
            return past_values.new_zeros(()), past_values.new_ones(())
        weight = past_values.new_ones(past_values.shape[:2]) if mask is None else mask.to(past_values.dtype)
        weight = (weight / weight.sum(1, keepdim=True).clamp(min=1))[..., None]
        values = past_values if mask is None else past_values.masked_fill(~mask[..., None], 0)
        location = (values * weight).sum(1, keepdim=True)
        variance = ((values - location) ** 2 * weight).sum(1, keepdim=True)
        return location, (variance + 1e-5).sqrt()


__all__ = ["FlowformerForTimeSeriesClassification", "FlowformerForTimeSeriesPrediction"]
