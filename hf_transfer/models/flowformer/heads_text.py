"""Flowformer for text understanding: classification of sequences and tokens, question answering, multiple choice."""

import torch
from torch import Tensor, nn
from transformers import initialization as init
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
    """Pools real tokens (`config.pooling`), then dropout and one linear layer, `classifier`.

    As in the authors' code for the Long Range Arena if asked: with `class_token` a learned token stands in front of
    each row, for `pooling="first"`, and with `classifier_hidden_size` a layer with ReLU comes before `classifier`.
    """

    required_modality = "text"
    accepts_loss_kwargs = False

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.num_labels = config.num_labels
        self.flowformer = FlowformerModel(config)
        self.class_token = nn.Parameter(torch.zeros(1, 1, config.hidden_size)) if config.class_token else None
        self.dropout = classifier_dropout(config)
        size = config.classifier_hidden_size
        self.dense = None if size is None else nn.Linear(config.hidden_size, size)
        self.classifier = nn.Linear(config.hidden_size if size is None else size, config.num_labels)
        self.post_init()

    @torch.no_grad()
    def _init_weights(self, module: nn.Module):
        super()._init_weights(module)
        if module is self and self.class_token is not None:
            init.zeros_(self.class_token)

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
        inputs = {
            "input_ids": input_ids,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "inputs_embeds": inputs_embeds,
            "token_type_ids": token_type_ids,
        }
        if self.class_token is not None:
            inputs = self._with_class_token(**inputs)
        outputs = self.flowformer(**inputs, **{"use_cache": False, "one_document_a_row": True, **kwargs})
        pooled = pool(outputs.last_hidden_state, inputs["attention_mask"], self.config.pooling)
        pooled = pooled if self.dense is None else nn.functional.relu(self.dense(pooled))
        logits = self.classifier(self.dropout(pooled))
        loss = None if labels is None else self.loss_function(labels, logits, self.config)
        return SequenceClassifierOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )

    def _with_class_token(self, input_ids, attention_mask, position_ids, inputs_embeds, token_type_ids) -> dict:
        """The inputs with the class token in front, at position 0; the others move up by one."""
        embeddings = self.flowformer.embeddings
        embeddings.sequence_shape(input_ids=input_ids, inputs_embeds=inputs_embeds)
        words = embeddings.embed(input_ids) if inputs_embeds is None else inputs_embeds
        tokens = torch.cat((self.class_token.expand(words.shape[0], -1, -1).to(words.dtype), words), dim=1)
        inputs = {"input_ids": None, "inputs_embeds": tokens}
        if position_ids is not None:
            position_ids = nn.functional.pad(position_ids + 1, (1, 0), value=0)
        if token_type_ids is not None:
            token_type_ids = nn.functional.pad(token_type_ids, (1, 0), value=0)
        if attention_mask is not None:
            attention_mask = nn.functional.pad(attention_mask, (1, 0), value=1)
        return {
            **inputs,
            "attention_mask": attention_mask,
            "position_ids": position_ids,
            "token_type_ids": token_type_ids,
        }


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
            **{"use_cache": False, "one_document_a_row": True, **kwargs},
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
        outputs = self.flowformer(**inputs, **{"use_cache": False, "one_document_a_row": True, **kwargs})
        pooled = pool(outputs.last_hidden_state, inputs.get("attention_mask"), self.config.pooling)
        logits = self.classifier(self.dropout(pooled)).view(-1, num_choices)
        loss = None if labels is None else nn.functional.cross_entropy(logits, labels.to(logits.device))
        return MultipleChoiceModelOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


__all__ = [
    "FlowformerForMultipleChoice",
    "FlowformerForQuestionAnswering",
    "FlowformerForSequenceClassification",
    "FlowformerForTokenClassification",
]
