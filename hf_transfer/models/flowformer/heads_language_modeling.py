"""Flowformer for language modelling: masked and causal."""

from torch import Tensor, nn
from transformers.activations import ACT2FN
from transformers.cache_utils import Cache
from transformers.generation import GenerationMixin
from transformers.modeling_outputs import (
    CausalLMOutputWithPast,
    MaskedLMOutput,
)
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES
from transformers.utils.generic import can_return_tuple

from .configuration_flowformer import FlowformerConfig
from .layers_flowformer import FlowformerLayerNorm
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel, layer_masks


class FlowformerForMaskedLM(FlowformerPreTrainedModel):
    """Predicts the hidden tokens: dense, activation, norm and the transposed word embeddings with a bias."""

    required_modality = "text"
    _tied_weights_keys = {"lm_head.weight": "flowformer.embeddings.word_embeddings.weight"}

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        if config.is_causal:
            raise ValueError("Masked language modelling reads both sides: set `is_causal=False`.")
        self.flowformer = FlowformerModel(config)
        self.dense = nn.Linear(config.hidden_size, config.hidden_size)
        self.activation = ACT2FN[config.hidden_act]
        self.head_norm = FlowformerLayerNorm(config.hidden_size, eps=config.layer_norm_eps)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.lm_head = new_embeddings

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # [B, L], -100 = not predicted
        **kwargs,
    ) -> MaskedLMOutput:
        num_items = kwargs.pop("num_items_in_batch", None)
        outputs = self.flowformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            **kwargs,
        )
        hidden_states = self.head_norm(self.activation(self.dense(outputs.last_hidden_state)))
        logits = self.lm_head(hidden_states)
        loss = None
        if labels is not None:
            vocab_size = self.config.vocab_size
            loss = self.loss_function(logits, labels, vocab_size=vocab_size, num_items_in_batch=num_items)
        return MaskedLMOutput(
            loss=loss, logits=logits, hidden_states=outputs.hidden_states, attentions=outputs.attentions
        )


class FlowformerForCausalLM(FlowformerPreTrainedModel, GenerationMixin):
    """Predicts the next token; the cache is a state of constant size, however long the context."""

    required_modality = "text"
    always_causal = True
    _tied_weights_keys = {"lm_head.weight": "flowformer.embeddings.word_embeddings.weight"}

    def __init__(self, config: FlowformerConfig):
        super().__init__(config)
        self.flowformer = FlowformerModel(self.config)
        self.lm_head = nn.Linear(config.hidden_size, config.vocab_size, bias=False)
        self.post_init()

    def get_output_embeddings(self) -> nn.Module:
        return self.lm_head

    def set_output_embeddings(self, new_embeddings: nn.Module):
        self.lm_head = new_embeddings

    @staticmethod
    def create_masks_for_generate(config, inputs_embeds, attention_mask, past_key_values, **kwargs) -> dict:
        """What generate() hands to a step that is one graph: the mask of each type of layer."""
        present = None if attention_mask is None else attention_mask[:, -inputs_embeds.shape[1] :].bool()
        return layer_masks(config, inputs_embeds, attention_mask, present, past_key_values)

    @can_return_tuple
    def forward(
        self,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        position_ids: Tensor | None = None,
        past_key_values: Cache | None = None,
        inputs_embeds: Tensor | None = None,
        token_type_ids: Tensor | None = None,
        labels: Tensor | None = None,  # [B, L], shifted inside; -100 = not predicted
        use_cache: bool | None = None,
        logits_to_keep: int | Tensor = 0,
        **kwargs,
    ) -> CausalLMOutputWithPast:
        # the labels of a row that is split over devices come shifted already
        terms = {name: kwargs.pop(name, None) for name in ("num_items_in_batch", "shift_labels")}
        outputs = self.flowformer(
            input_ids=input_ids,
            attention_mask=attention_mask,
            position_ids=position_ids,
            past_key_values=past_key_values,
            inputs_embeds=inputs_embeds,
            token_type_ids=token_type_ids,
            use_cache=use_cache,
            **kwargs,
        )
        hidden_states = outputs.last_hidden_state
        keep = slice(-logits_to_keep, None) if isinstance(logits_to_keep, int) else logits_to_keep
        logits = self.lm_head(hidden_states[:, keep])
        loss = None
        if labels is not None or terms["shift_labels"] is not None:
            loss = self.loss_function(logits, labels, vocab_size=self.config.vocab_size, **terms)
        return CausalLMOutputWithPast(
            loss=loss,
            logits=logits,
            past_key_values=outputs.past_key_values,
            hidden_states=outputs.hidden_states,
            attentions=outputs.attentions,
        )


# transformers' Trainer shifts the labels that it smooths for the names of this table alone: without it a model would
# learn to repeat the token that it has just read
MODEL_FOR_CAUSAL_LM_MAPPING_NAMES.setdefault(FlowformerConfig.model_type, FlowformerForCausalLM.__name__)

__all__ = ["FlowformerForCausalLM", "FlowformerForMaskedLM"]
