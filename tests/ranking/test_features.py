import pytest
import torch
from transformers import (
    AutoModel,
    BertConfig,
    BertModel,
    ConvNextConfig,
    ConvNextModel,
    PatchTSTConfig,
    PatchTSTModel,
    SamVisionConfig,
    SamVisionModel,
)

from hf_transfer.models.flowformer import FlowformerConfig, FlowformerModel
from hf_transfer.ranking import FeatureExtractor
from hf_transfer.ranking.features import pool

HIDDEN = torch.arange(24.0).reshape(2, 4, 3)
MASK = torch.tensor([[1, 1, 0, 0], [1, 1, 1, 1]])


def tiny_bert():
    torch.manual_seed(0)
    return BertModel(
        BertConfig(hidden_size=16, num_hidden_layers=3, num_attention_heads=2, intermediate_size=32, vocab_size=20)
    )


def test_pooling_reads_real_tokens_only():
    assert torch.equal(pool(HIDDEN, MASK, "mean"), torch.stack([HIDDEN[0, :2].mean(0), HIDDEN[1].mean(0)]))
    assert torch.equal(pool(HIDDEN, MASK, "max"), torch.stack([HIDDEN[0, 1], HIDDEN[1, 3]]))
    assert torch.equal(pool(HIDDEN, MASK, "last"), torch.stack([HIDDEN[0, 1], HIDDEN[1, 3]]))
    assert torch.equal(pool(HIDDEN, MASK, "cls"), HIDDEN[:, 0])
    left = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert torch.equal(pool(HIDDEN, left, "last"), HIDDEN[:, 3])


def test_pooling_of_maps_and_vectors():
    image = torch.randn(2, 5, 3, 3)
    torch.testing.assert_close(pool(image, None, "mean"), image.mean(dim=(2, 3)))
    torch.testing.assert_close(pool(image, None, "max"), image.amax(dim=(2, 3)))
    assert torch.equal(pool(image[:, :, 0, 0], None, "max"), image[:, :, 0, 0])
    with pytest.raises(ValueError, match="2 to 4 axes"):
        pool(torch.zeros(2, 3, 4, 5, 6), None, "mean")


def test_the_first_token_of_left_padded_text_is_no_padding():
    left = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 1]])
    assert torch.equal(pool(HIDDEN, left, "cls"), torch.stack([HIDDEN[0, 2], HIDDEN[1, 1]]))


def test_padding_does_not_change_features():
    extract = FeatureExtractor(tiny_bert(), layers="all")
    ids = torch.randint(3, 20, (1, 5))
    alone = extract({"input_ids": ids, "attention_mask": torch.ones(1, 5)})
    padded = extract(
        {
            "input_ids": torch.nn.functional.pad(ids, (0, 3)),
            "attention_mask": torch.tensor([[1, 1, 1, 1, 1, 0, 0, 0]]),
        }
    )
    for layer, features in alone.items():
        torch.testing.assert_close(padded[layer], features, atol=1e-5, rtol=1e-5)


def test_all_layers_in_one_pass():
    model = tiny_bert()
    inputs = {"input_ids": torch.randint(3, 20, (2, 5))}
    states = model.eval()(**inputs, output_hidden_states=True).hidden_states
    everything = FeatureExtractor(model, "all", "cls")(inputs)
    assert sorted(everything) == [0, 1, 2, 3]
    for layer, features in everything.items():
        torch.testing.assert_close(features, states[layer][:, 0])
    assert list(FeatureExtractor(model, "last", "cls")(inputs)) == [3]
    some = FeatureExtractor(model, [0, -1], "cls")(inputs)
    assert sorted(some) == [0, 3]
    torch.testing.assert_close(some[3], everything[3])


def test_convolutional_models():
    torch.manual_seed(0)
    model = ConvNextModel(ConvNextConfig(hidden_sizes=[4, 8], depths=[1, 1], num_stages=2, num_channels=1)).eval()
    inputs = {"pixel_values": torch.randn(2, 1, 32, 32)}
    features = FeatureExtractor(model, "all")(inputs)
    assert [features[layer].shape[1] for layer in sorted(features)] == [4, 4, 8]
    torch.testing.assert_close(features[2], model(**inputs).last_hidden_state.mean(dim=(2, 3)))
    assert list(FeatureExtractor(model)(inputs)) == [2]


def test_patches_of_every_channel_of_a_series():
    torch.manual_seed(0)
    sizes = {"d_model": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "ffn_dim": 32}
    model = PatchTSTModel(PatchTSTConfig(num_input_channels=3, context_length=24, patch_length=4, **sizes)).eval()
    inputs = {"past_values": torch.randn(2, 24, 3)}
    state = model(**inputs).last_hidden_state
    assert state.shape[:2] == (2, 3) and state.shape[3] == 16
    torch.testing.assert_close(FeatureExtractor(model, "last")(inputs)[2], state.mean(dim=(1, 2)))


def test_maps_with_their_features_last():
    torch.manual_seed(0)
    sizes = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "output_channels": 12}
    config = SamVisionConfig(**sizes, image_size=32, patch_size=4, window_size=2, global_attn_indexes=[1])
    model, inputs = SamVisionModel(config).eval(), {"pixel_values": torch.randn(2, 3, 32, 32)}
    state = model(**inputs, output_hidden_states=True).hidden_states[1]
    assert state.shape == (2, 8, 8, 16)
    features = FeatureExtractor(model, "all")(inputs)
    torch.testing.assert_close(features[1], state.mean(dim=(1, 2)))
    assert features[2].shape == (2, 12)


def test_flowformer():
    torch.manual_seed(0)
    config = FlowformerConfig.from_size(
        "tiny", modality="image", hidden_size=16, intermediate_size=32, image_size=8, patch_size=4, num_channels=1
    )
    model = FlowformerModel(config).eval()
    inputs = {"pixel_values": torch.randn(2, 1, 8, 8)}
    features = FeatureExtractor(model, "all")(inputs)
    assert sorted(features) == [0, 1, 2]
    torch.testing.assert_close(features[2], model(**inputs).last_hidden_state.mean(dim=1))
    assert not torch.allclose(features[1], features[2])


def test_masked_image_models_see_the_whole_image(zoo, digits):
    from hf_transfer.modeling.loading import load_model

    extract = FeatureExtractor(load_model(zoo / "mae", str))
    inputs = {"pixel_values": digits["pixel_values"][:4]}
    torch.testing.assert_close(extract(inputs)[2], extract(inputs)[2])
    assert extract.model(**inputs).last_hidden_state.shape[1] == 5
    masked = AutoModel.from_pretrained(zoo / "mae").eval()
    assert masked(**inputs).last_hidden_state.shape[1] == 2


def test_wrong_keywords_are_refused():
    with pytest.raises(ValueError, match="`pooling`"):
        FeatureExtractor(tiny_bert(), pooling="median")
    for layers in ("first", [], ["1"]):
        with pytest.raises(ValueError, match="`layers`"):
            FeatureExtractor(tiny_bert(), layers=layers)
    with pytest.raises(ValueError, match=r"`layers` should lie in \[-4, 3\], got \[7\]"):
        FeatureExtractor(tiny_bert(), layers=[7])({"input_ids": torch.ones(1, 2, dtype=torch.long)})
