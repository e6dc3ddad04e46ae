import numpy as np
import pytest
import torch
from datasets import Dataset
from transformers import FNetConfig, FNetModel

from hf_transfer.ranking import rank_models
from tests.marks import slow
from tests.modeling.test_masks import speech_model


def varied(name, make, seed=0):
    """Forty rows of differing length under `name`, of two classes that differ."""
    random = np.random.default_rng(seed)
    labels = random.integers(0, 2, 40)
    rows = [make(random, int(length), int(label)) for length, label in zip(random.integers(120, 240, 40), labels)]
    return Dataset.from_dict({name: rows, "labels": labels.tolist()})


@pytest.fixture(scope="module")
def waves():
    def wave(random, length, label):
        return np.sin(np.arange(length) * (0.1 + 0.2 * label)) + 0.5 * random.standard_normal(length)

    return varied("input_values", wave).with_format("torch")


def scores_by_batch_size(folder, dataset, sizes=(1, 8, 40)):
    rows = [
        rank_models([folder], dataset, score="logme", layers="all", batch_size=size, progress=False).best
        for size in sizes
    ]
    return [[score.value for score in row.layers.values()] for row in rows]


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("Wav2Vec2", {"feat_extract_norm": "group"}),
        ("Wav2Vec2", {"feat_extract_norm": "layer", "do_stable_layer_norm": True}),
        slow("Hubert", {"feat_extract_norm": "layer"}),
        slow("WavLM", {"feat_extract_norm": "layer"}),
        slow("UniSpeech", {"feat_extract_norm": "group"}),
        ("SEW", {"feat_extract_norm": "layer", "squeeze_factor": 2}),
        slow("Data2VecAudio", {"conv_pos_kernel_size": 5}),
    ],
)
def test_the_batch_size_does_not_change_a_speech_models_score(waves, tmp_path, name, options):
    speech_model(name, **options).save_pretrained(tmp_path)
    one, *others = scores_by_batch_size(tmp_path, waves)
    for other in others:
        assert other == pytest.approx(one, abs=1e-4)


def test_a_text_model_without_a_mask_reads_rows_of_one_length(tmp_path):
    torch.manual_seed(0)
    FNetModel(FNetConfig(hidden_size=16, num_hidden_layers=2, intermediate_size=32, vocab_size=40)).save_pretrained(
        tmp_path
    )
    texts = varied("input_ids", lambda random, length, label: random.integers(3, 30 + label, length // 10))
    one, *others = scores_by_batch_size(tmp_path, texts)
    for other in others:
        assert other == pytest.approx(one, abs=1e-4)
