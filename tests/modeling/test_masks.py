import pytest
import torch
import transformers

from hf_transfer.modeling.masks import UnknownMaskError, state_mask

SPEECH = {
    "hidden_size": 16,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "intermediate_size": 32,
    "conv_dim": (16, 16),
    "conv_kernel": (10, 4),
    "conv_stride": (5, 2),
    "num_feat_extract_layers": 2,
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
}


def speech_model(name, **options):
    torch.manual_seed(0)
    config = getattr(transformers, f"{name}Config")(**{**SPEECH, **options})
    return getattr(transformers, f"{name}Model")(config).eval()


def mask_of(*lengths):
    return (torch.arange(max(lengths)) < torch.tensor(lengths)[:, None]).long()


@pytest.mark.parametrize("name", ["Wav2Vec2", "Hubert", "WavLM", "UniSpeech", "UniSpeechSat", "Data2VecAudio"])
def test_frames_follow_the_models_own_rule(name):
    model, mask = speech_model(name), mask_of(240, 133, 12)
    frames = model(torch.zeros(1, 240)).last_hidden_state.shape[1]
    expected = model._get_feature_vector_attention_mask(frames, mask[:2]).long()
    real = state_mask(model, mask, frames)
    assert torch.equal(real[:2], expected)
    # 240 samples give (240 - 10) // 5 + 1 = 47, then (47 - 4) // 2 + 1 = 22 frames; 133 give 25, then 11.
    assert real.sum(dim=1).tolist() == [22, 11, 1]


def test_an_adapter_shortens_the_last_layer_alone():
    model = speech_model("Wav2Vec2", add_adapter=True, num_adapter_layers=1, adapter_stride=2)
    assert state_mask(model, mask_of(240, 133), 22).sum(dim=1).tolist() == [22, 11]
    assert state_mask(model, mask_of(240, 133), 11).sum(dim=1).tolist() == [11, 6]


def test_blocks_that_squeeze_frames():
    model = speech_model("SEW", squeeze_factor=2)
    assert state_mask(model, mask_of(240, 133), 22).sum(dim=1).tolist() == [22, 11]
    assert state_mask(model, mask_of(240, 133), 11).sum(dim=1).tolist() == [11, 5]


def test_the_same_length_and_no_padding_need_no_rule():
    model, mask = torch.nn.Linear(2, 2), torch.tensor([[0, 1, 1], [1, 1, 1]])
    assert state_mask(model, mask, 3) is mask
    assert state_mask(model, torch.ones(2, 3), 7) is None and state_mask(model, None, 7) is None
    with pytest.raises(UnknownMaskError, match="Linear makes 2 states of 3 places of input and has no rule"):
        state_mask(model, mask, 2)
