"""Flowformer as a transformers architecture; the files of this folder travel with a model as remote code."""

from .attention_flowformer import register_flow_attention
from .backbone_flowformer import FlowformerBackbone
from .cache_flowformer import FlowAttentionCacheLayer
from .configuration_flowformer import FlowformerConfig
from .flow_attention import flow_attention
from .flow_state import FlowState
from .heads_image import FlowformerForImageClassification, FlowformerForMaskedImageModeling
from .heads_language_modeling import FlowformerForCausalLM, FlowformerForMaskedLM
from .heads_series_pretraining import FlowformerForTimeSeriesPretraining, FlowformerForTrajectoryPretraining
from .heads_text import (
    FlowformerForMultipleChoice,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTokenClassification,
)
from .heads_time_series import FlowformerForTimeSeriesClassification, FlowformerForTimeSeriesPrediction
from .heads_trajectory import DecisionFlowformer
from .modeling_flowformer import FlowformerModel, FlowformerPreTrainedModel

__all__ = [
    "DecisionFlowformer",
    "FlowAttentionCacheLayer",
    "FlowState",
    "FlowformerBackbone",
    "FlowformerConfig",
    "FlowformerForCausalLM",
    "FlowformerForImageClassification",
    "FlowformerForMaskedImageModeling",
    "FlowformerForMaskedLM",
    "FlowformerForMultipleChoice",
    "FlowformerForQuestionAnswering",
    "FlowformerForSequenceClassification",
    "FlowformerForTimeSeriesClassification",
    "FlowformerForTimeSeriesPrediction",
    "FlowformerForTimeSeriesPretraining",
    "FlowformerForTokenClassification",
    "FlowformerForTrajectoryPretraining",
    "FlowformerModel",
    "FlowformerPreTrainedModel",
    "flow_attention",
    "register_flow_attention",
]
