"""transformers' own `ModelTesterMixin` on the text, image and time-series models."""

import copy
import unittest

import pytest
import torch

from hf_transfer.models.flowformer import (
    FlowformerForCausalLM,
    FlowformerForImageClassification,
    FlowformerForMaskedImageModeling,
    FlowformerForMaskedLM,
    FlowformerForMultipleChoice,
    FlowformerForQuestionAnswering,
    FlowformerForSequenceClassification,
    FlowformerForTimeSeriesClassification,
    FlowformerForTimeSeriesPrediction,
    FlowformerForTokenClassification,
    FlowformerModel,
)
from tests.models.flowformer.tiny import BATCH, LENGTH, head_inputs, tiny_config, tiny_labels
from tests.models.flowformer.transformers_tests import Unavailable, load_model_tester_mixin

try:
    ModelTesterMixin = load_model_tester_mixin()
except Unavailable as error:
    pytest.skip(f"transformers' tests could not be fetched: {error}", allow_module_level=True)


class Tester:
    """What the mixin asks a model's tests for: sizes, a configuration and inputs."""

    batch_size = BATCH
    seq_length = LENGTH
    is_training = True
    num_choices = 3

    def __init__(self, modality: str):
        self.modality = modality
        config = self.get_config()
        self.hidden_size = config.hidden_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads
        if modality == "image":
            self.seq_length = (config.image_size // config.patch_size) ** 2

    def get_config(self):
        return tiny_config(self.modality)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        inputs = head_inputs(FlowformerModel, config)
        if self.modality == "text":
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return config, inputs


class CommonTests(ModelTesterMixin):
    modality: str
    test_resize_embeddings = False

    def setUp(self):
        self.model_tester = Tester(self.modality)

    def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
        inputs = copy.deepcopy(inputs_dict)
        if model_class is FlowformerForMultipleChoice:
            inputs = {name: tensor[:, None].repeat(1, 3, 1) for name, tensor in inputs.items()}
        if model_class is FlowformerForMaskedImageModeling:
            inputs["noise"] = head_inputs(model_class, self.model_tester.get_config())["noise"]
        if return_labels and model_class is not FlowformerModel:
            inputs.update(tiny_labels(model_class, self.model_tester.get_config(), inputs))
        return inputs


class TestText(CommonTests, unittest.TestCase):
    modality = "text"
    test_resize_embeddings = True
    all_model_classes = (
        FlowformerModel,
        FlowformerForMaskedLM,
        FlowformerForCausalLM,
        FlowformerForSequenceClassification,
        FlowformerForTokenClassification,
        FlowformerForQuestionAnswering,
        FlowformerForMultipleChoice,
    )


class TestImage(CommonTests, unittest.TestCase):
    modality = "image"
    all_model_classes = (FlowformerModel, FlowformerForImageClassification, FlowformerForMaskedImageModeling)


class TestTimeSeries(CommonTests, unittest.TestCase):
    modality = "time_series"
    all_model_classes = (FlowformerModel, FlowformerForTimeSeriesClassification, FlowformerForTimeSeriesPrediction)
