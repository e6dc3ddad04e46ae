"""Tiny Flowformers of every modality and head, with inputs that fit them."""

import torch

from hf_transfer.models.flowformer import (
    DecisionFlowformer,
    FlowformerConfig,
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedImageModeling,
    FlowformerForMaskedLM,
    FlowformerForMultipleChoice,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPrediction,
    FlowformerForTimeSeriesPretraining,
    FlowformerForTokenClassification,
    FlowformerForTrajectoryPretraining,
)

BATCH, LENGTH, VOCABULARY, CLASSES = 2, 7, 31, 3

HEADS = {
    "text": [
        FlowformerForMaskedLM,
        FlowformerForCausalLM,
        FlowformerForSequenceClassification,
        FlowformerForTokenClassification,
        FlowformerForQuestionAnswering,
        FlowformerForMultipleChoice,
    ],
    "image": [FlowformerForImageClassification, FlowformerForMaskedImageModeling],
    "time_series": [
        FlowformerForTimeSeriesClassification,
        FlowformerForTimeSeriesPrediction,
        FlowformerForTimeSeriesPretraining,
    ],
    "trajectory": [DecisionFlowformer, FlowformerForTrajectoryPretraining],
}
HEADS_AND_MODALITIES = [(head, modality) for modality, heads in HEADS.items() for head in heads]


def tiny_config(modality: str = "text", **fields) -> FlowformerConfig:
    sizes = {
        "hidden_size": 16,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "intermediate_size": 24,
        "max_position_embeddings": 64,
        "vocab_size": VOCABULARY,
        "image_size": 8,
        "patch_size": 2,
        "num_channels": 1,
        "decoder_hidden_size": 8,
        "decoder_num_hidden_layers": 1,
        "decoder_num_attention_heads": 2,
        "decoder_intermediate_size": 16,
        "num_input_channels": 3,
        "prediction_length": 4,
        "state_dim": 5,
        "act_dim": 2,
        "max_episode_length": 20,
        "num_labels": CLASSES,
    }
    return FlowformerConfig(modality=modality, **{**sizes, **fields})


def tiny_inputs(config: FlowformerConfig, batch: int = BATCH, length: int = LENGTH, seed: int = 0) -> dict:
    """Inputs of the bare model for `config.modality`."""
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape):
        return torch.randn(*shape, generator=generator)

    if config.modality == "text":
        return {"input_ids": torch.randint(1, config.vocab_size, (batch, length), generator=generator)}
    if config.modality == "image":
        return {"pixel_values": normal(batch, config.num_channels, config.image_size, config.image_size)}
    if config.modality == "time_series":
        return {"past_values": normal(batch, length, config.num_input_channels)}
    return {
        "states": normal(batch, length, config.state_dim),
        "actions": normal(batch, length, config.act_dim).tanh(),
        "returns_to_go": normal(batch, length, 1),
        "timesteps": torch.arange(length).expand(batch, length),
    }


def tiny_labels(head: type, config: FlowformerConfig, inputs: dict) -> dict:
    """The labels that make `head` give a loss for `inputs`."""
    if head in (FlowformerForMaskedLM, FlowformerForCausalLM):
        return {"labels": inputs["input_ids"]}
    if head is FlowformerForTokenClassification:
        return {"labels": inputs["input_ids"] % CLASSES}
    if head is FlowformerForQuestionAnswering:
        return {"start_positions": torch.zeros(BATCH, dtype=torch.long), "end_positions": torch.ones(BATCH, dtype=int)}
    if head is FlowformerForMaskedImageModeling:
        return {}
    if head is FlowformerForTimeSeriesPrediction:
        return {"future_values": torch.ones(BATCH, config.prediction_length, config.num_input_channels)}
    if head is FlowformerForTimeSeriesPretraining:
        return {"hidden_steps": torch.arange(LENGTH).expand(BATCH, LENGTH) % 2}
    if head in (DecisionFlowformer, FlowformerForTrajectoryPretraining):
        return {"labels": inputs["actions"]}
    return {"labels": torch.arange(BATCH) % CLASSES}


def head_inputs(head: type, config: FlowformerConfig, seed: int = 0) -> dict:
    """Inputs of `head` without labels."""
    inputs = tiny_inputs(config, seed=seed)
    if head is FlowformerForMultipleChoice:
        inputs = {"input_ids": inputs["input_ids"][:, None].repeat(1, 3, 1).cumsum(1) % config.vocab_size}
    if head is FlowformerForMaskedImageModeling:
        patches = (config.image_size // config.patch_size) ** 2
        inputs["noise"] = torch.rand(BATCH, patches, generator=torch.Generator().manual_seed(seed))
    return inputs


def first_output(outputs) -> torch.Tensor:
    """What a head predicts, whatever it is called."""
    names = ("logits", "prediction_outputs", "action_preds", "start_logits", "last_hidden_state")
    return next(outputs[name] for name in names if name in outputs)
