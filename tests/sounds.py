"""Short sounds in files of several kinds, and tiny models of sound."""

from __future__ import annotations

import wave
from pathlib import Path

import numpy as np
from transformers import (
    ASTConfig,
    ASTFeatureExtractor,
    ASTForAudioClassification,
    HubertConfig,
    HubertForSequenceClassification,
    PreTrainedModel,
    Wav2Vec2Config,
    Wav2Vec2FeatureExtractor,
    Wav2Vec2ForSequenceClassification,
)

RATE = 2000
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
CONVOLUTIONS = {
    "conv_dim": (8, 8),
    "conv_kernel": (10, 8),
    "conv_stride": (5, 4),
    "num_conv_pos_embeddings": 8,
    "num_conv_pos_embedding_groups": 2,
    "feat_extract_norm": "layer",
    "do_stable_layer_norm": True,
    "mask_time_prob": 0.0,
    "classifier_proj_size": 8,
}


def tone(pitch: float, seconds: float, rate: int = RATE, seed: int = 0) -> np.ndarray:
    """A sine of so many Hz with some noise, [T] in [-1, 1]."""
    time = np.arange(int(seconds * rate)) / rate
    return 0.5 * np.sin(2 * np.pi * pitch * time) + 0.05 * np.random.default_rng(seed).normal(size=len(time))


def write(path: Path, samples: np.ndarray, rate: int = RATE) -> Path:
    """Samples [T] or [T, channels] as a 16-bit wav file."""
    path.parent.mkdir(parents=True, exist_ok=True)
    values = np.asarray(samples)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1 if values.ndim == 1 else values.shape[1])
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes((np.clip(values, -1, 1) * 32767).astype("<i2").tobytes())
    return path


def write_folder(folder: Path, count: int = 8, rate: int = RATE, shift: float = 0.0) -> Path:
    """Low and high tones of several lengths, a folder for each."""
    for label, pitch in (("low", 100.0), ("high", 300.0)):
        for number in range(count):
            samples = tone(pitch + shift + 2 * number, 0.1 + 0.02 * number, rate, number)
            write(folder / label / f"{number}.wav", samples, rate)
    return folder


def wav2vec2(num_labels: int = 2) -> Wav2Vec2ForSequenceClassification:
    return Wav2Vec2ForSequenceClassification(Wav2Vec2Config(**SMALL, **CONVOLUTIONS, num_labels=num_labels))


def hubert(num_labels: int = 2) -> HubertForSequenceClassification:
    return HubertForSequenceClassification(HubertConfig(**SMALL, **CONVOLUTIONS, num_labels=num_labels))


def ast(num_labels: int = 2) -> ASTForAudioClassification:
    sizes = {"max_length": 24, "num_mel_bins": 16, "patch_size": 8, "frequency_stride": 8, "time_stride": 8}
    return ASTForAudioClassification(ASTConfig(**SMALL, **sizes, num_labels=num_labels))


def save(folder: Path, model: PreTrainedModel) -> Path:
    """The model with its feature extractor."""
    model.save_pretrained(folder)
    if model.config.model_type == "audio-spectrogram-transformer":
        extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=24, sampling_rate=16_000)
    else:
        extractor = Wav2Vec2FeatureExtractor(sampling_rate=RATE, return_attention_mask=True)
    extractor.save_pretrained(folder)
    return folder
