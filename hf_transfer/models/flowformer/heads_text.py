"""Flowformer for text understanding: classification of sequences and tokens, question answering, multiple choice."""

from torch import Tensor, nn
from transformers.modeling_outputs import (
    MultipleChoiceModelOutput,
    QuestionAnsweringModelOutput,
    SequenceClassifierOutput,
    TokenClassifierOutput,
)
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel
from .pooling_flowformer import classifier_dropout, pool


class FlowformerForSequenceClassification(FlowformerPreTrainedModel):
    """Pools real tokens (`config.pooling`), then dropout and one linear layer, `classifier`."""

    required_modality = "text"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.flowformer = FlowformerModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,  # [B, L]
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # [B]
        **kwargs,
    ) -> SequenceClassifierOutput:
        outputs = self.flowformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            **{"use_cache": False, **kwargs},
        )
        pooled = pool(outputs.last_hidden_state, attention_mask, self.config.pooling)
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FlowformerForTokenClassification(FlowformerPreTrainedModel):
    """Dropout and one linear layer, `classifier`, on every token."""

    required_modality = "text"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.flowformer = FlowformerModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, config.num_labels)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,  # [B, L]
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # [B, L], -100 = ignored
        **kwargs,
    ) -> TokenClassifierOutput:
        outputs = self.flowformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            **{"use_cache": False, **kwargs},
        )
        logits = self.classifier(self.dropout(outputs.last_hidden_state))
        if labels is not None and inputs_embeds is not None:
            # a learned prompt (PEFT) stands in front of the tokens and has no labels
            labels = nn.functional.pad(labels, (max(0, logits.shape[1] - labels.shape[1]), 0), value=-100)
        loss = None if labels is None else self.loss_function(logits, labels, self.config)
        return TokenClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FlowformerForQuestionAnswering(FlowformerPreTrainedModel):
    """Scores each token as the start and as the end of the answer."""

    required_modality = "text"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(config)
        self.qa_outputs = nn.Linear(config.hidden_size, 2)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,  # [B, L]
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        start_positions: Tensor | None = None,  # [B]
        end_positions: Tensor | None = None,  # [B]
        **kwargs,
    ) -> QuestionAnsweringModelOutput:
        outputs = self.flowformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            **{"use_cache": False, **kwargs},
        )
        start_logits, end_logits = self.qa_outputs(outputs.last_hidden_state).unbind(-1)
        loss = None
        if start_positions is not None and end_positions is not None:
            loss = self.loss_function(start_logits, end_logits, start_positions, end_positions)
        return QuestionAnsweringModelOutput(
            loss=loss,
            start_logits=start_logits.contiguous(),
            end_logits=end_logits.contiguous(),
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


class FlowformerForMultipleChoice(FlowformerPreTrainedModel):
    """Scores each of K candidate sequences with one number; the inputs are [B, K, L]."""

    required_modality = "text"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(config)
        self.dropout = classifier_dropout(config)
        self.classifier = nn.Linear(config.hidden_size, 1)
        self.post_init()

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # [B], the number of the right candidate
        **kwargs,
    ) -> MultipleChoiceModelOutput:
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
        }
        inputs = {name: tensor for name, tensor in inputs.items() if tensor is not None}
        num_choices = next(iter(inputs.values())).shape[1] if inputs else 0
        inputs = {name: tensor.flatten(0, 1) for name, tensor in inputs.items()}
        outputs = self.flowformer(**inputs, **{"use_cache": False, **kwargs})
        pooled = pool(outputs.last_hidden_state, inputs.get("attention_mask"), self.config.pooling)
        logits = self.classifier(self.dropout(pooled)).view(-1, num_choices)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels.to(logits.device))
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )
