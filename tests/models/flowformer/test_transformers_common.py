"""transformers' own `ModelTesterMixin` on the text, image and time-series models.

Its tests are fetched when this one runs, never at collection, so that every machine and every worker collects the
same tests; each of the mixin's tests is a subtest.
"""

import copy
import functools
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
from tests.marks import slow
from tests.models.flowformer.tiny import BATCH, LENGTH, head_inputs, tiny_config, tiny_labels
from tests.models.flowformer.transformers_tests import Unavailable, load_model_tester_mixin

SLOW = ("image", "time_series")
MODALITIES = ["text", *(slow(one) for one in SLOW)]


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
            self.image_size, self.patch_size = config.image_size, config.patch_size
            self.seq_length = (config.image_size // config.patch_size) ** 2
            self.num_masks = self.seq_length // 2

    def get_config(self):
        return tiny_config(self.modality)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        inputs = head_inputs(FlowformerModel, config)
        if self.modality == "text":
            inputs["attention_mask"] = torch.ones_like(inputs["input_ids"])
        return config, inputs


def once(with_masks: bool):
    """Run on the bare model only what would repeat itself per head: the 24 comparisons of eager and sdpa, and dtypes.

    Without `with_masks`, skip comparisons with a padding mask: the mixin makes it as long as the last dimension of the
    input, which for images and series is no length. test_modeling_flowformer.py tests padding under every twin.
    """

    def on_the_bare_model(test):
        @functools.wraps(test)
        def run(self):
            self.all_model_classes = (FlowformerModel,)
            test(self)

        return run

    def decorate(tests: type) -> type:
        comparisons = [name for name in dir(tests) if name.startswith("test_eager_matches_sdpa_inference_")]
        for name in [*comparisons, "test_bc_torch_dtype"]:
            setattr(tests, name, on_the_bare_model(getattr(tests, name)))
        for name in dir(tests):
            if name.startswith("test_model_rope_scaling_from_config"):
                setattr(tests, name, unittest.skip("positions are learned here")(getattr(tests, name)))
        for name in comparisons:
            if not with_masks and "no_attn_mask" not in name:
                setattr(tests, name, unittest.skip("the mixin's mask has the wrong length")(getattr(tests, name)))
        return tests

    return decorate


def cases_by_modality(ModelTesterMixin: type) -> dict[str, type]:
    """The mixin on each modality's models."""

    class CommonTests(ModelTesterMixin):
        modality: str
        test_resize_embeddings = False
        # The distribution does not hold the mixin for generate(): see test_generation.py.
        all_generative_model_classes = ()

        def setUp(self):
            self.model_tester = Tester(self.modality)

        def _prepare_for_class(self, inputs_dict, model_class, return_labels=False):
            inputs = copy.deepcopy(inputs_dict)
            if model_class is FlowformerForMultipleChoice:
                inputs = {
                    name: value[:, None].repeat(1, 3, 1) if torch.is_tensor(value) else value
                    for name, value in inputs.items()
                }
            if model_class is FlowformerForMaskedImageModeling and "noise" not in inputs:
                inputs["noise"] = head_inputs(model_class, self.model_tester.get_config())["noise"]
            if return_labels and model_class is not FlowformerModel:
                inputs.update(tiny_labels(model_class, self.model_tester.get_config(), inputs))
            return inputs

        @unittest.skip("asserts that the default attention is sdpa; ours is flow")
        def test_sdpa_can_dispatch_non_composite_models(self):
            pass

        @unittest.skip("positions are learned here; test_positions_flowformer.py compares rotary ones")
        def test_model_rope_scaling_frequencies(self):
            pass

        @unittest.skip("as above")
        def test_model_rope_with_partial_rotation(self):
            pass

        # The mixin expects the length of the input in every layer: the encoder of masked images sees fewer patches,
        # and prediction appends the future's tokens. Their own lengths are checked in test_heads.py.
        def test_attention_outputs(self):
            self._on_heads_of_the_same_length(super().test_attention_outputs)

        def test_hidden_states_output(self):
            self._on_heads_of_the_same_length(super().test_hidden_states_output)

        def _on_heads_of_the_same_length(self, test):
            other = (FlowformerForMaskedImageModeling, FlowformerForTimeSeriesPrediction)
            self.all_model_classes = tuple(head for head in self.all_model_classes if head not in other)
            test()

    class WithoutTokens(CommonTests):
        """Images and time series have no table of embeddings and no token ids."""

        @unittest.skip("asserts that the input layer is an nn.Embedding; here it is a convolution or a linear layer")
        def test_model_get_set_embeddings(self):
            pass

        @unittest.skip("looks ids up in the table of embeddings; these models have neither")
        def test_inputs_embeds(self):
            pass

        @unittest.skip("looks ids up in the table of embeddings; these models have neither")
        def test_inputs_embeds_matches_input_ids(self):
            pass

    @once(with_masks=True)
    class Text(CommonTests, unittest.TestCase):
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

    @once(with_masks=False)
    class Image(WithoutTokens, unittest.TestCase):
        modality = "image"
        all_model_classes = (FlowformerModel, FlowformerForImageClassification, FlowformerForMaskedImageModeling)

    @once(with_masks=False)
    class TimeSeries(WithoutTokens, unittest.TestCase):
        modality = "time_series"
        all_model_classes = (FlowformerModel, FlowformerForTimeSeriesClassification, FlowformerForTimeSeriesPrediction)

    return {"text": Text, "image": Image, "time_series": TimeSeries}


@pytest.fixture(scope="module")
def cases() -> dict[str, type[unittest.TestCase]]:
    try:
        return cases_by_modality(load_model_tester_mixin())
    except Unavailable as error:
        pytest.skip(f"transformers' tests could not be fetched: {error}")


@pytest.mark.parametrize("modality", MODALITIES)
@pytest.mark.slow
def test_transformers_common(modality, cases, subtests):
    names = unittest.TestLoader().getTestCaseNames(cases[modality])
    assert len(names) > 50
    for name in names:
        with subtests.test(name):
            result = unittest.TestResult()
            cases[modality](name).run(result)
            if result.skipped:
                pytest.skip(result.skipped[0][1])
            assert result.testsRun == 1
            assert result.wasSuccessful(), (result.errors + result.failures)[0][1]
