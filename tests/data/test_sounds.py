"""Sounds of any rate and number of channels, and files that are none."""

import numpy as np
import pytest
import torch
from datasets import Audio, Dataset
from transformers import ASTFeatureExtractor, Wav2Vec2FeatureExtractor

from hf_transfer.data.bundled import load, load_splits
from hf_transfer.data.sounds import SoundCollator, least_samples, read_sound, with_samples
from tests.sounds import RATE, hubert, tone, write, write_folder

pytest.importorskip("soundfile")


def cell(path) -> dict:
    return {"path": str(path), "bytes": None}


def test_a_sound_of_the_right_rate_is_its_samples(tmp_path):
    samples = tone(200, 0.1)
    read = read_sound(cell(write(tmp_path / "a.wav", samples)), RATE, "row 0")
    np.testing.assert_allclose(read, samples, atol=1e-4)
    assert read.dtype == np.float32
    content = {"path": None, "bytes": (tmp_path / "a.wav").read_bytes()}
    np.testing.assert_array_equal(read_sound(content, RATE, "row 0"), read)


def test_channels_are_averaged(tmp_path):
    left, right = tone(200, 0.1), tone(300, 0.1)
    read = read_sound(cell(write(tmp_path / "a.wav", np.stack([left, right], axis=1))), RATE, "row 0")
    np.testing.assert_allclose(read, (left + right) / 2, atol=1e-4)


@pytest.mark.parametrize("rate", [8000, 4410])
def test_another_rate_is_resampled(tmp_path, rate):
    time = np.arange(rate) / rate
    read = read_sound(cell(write(tmp_path / "a.wav", 0.5 * np.sin(2 * np.pi * 200 * time), rate)), RATE, "row 0")
    wanted = 0.5 * np.sin(2 * np.pi * 200 * np.arange(RATE) / RATE)
    assert len(read) == RATE
    np.testing.assert_allclose(read[100:-100], wanted[100:-100], atol=0.01)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(100), r"row 3 \(`.*a.wav`\) is silent: every sample is the same"),
        (np.stack([tone(200, 0.1), -tone(200, 0.1)], axis=1), "is silent: its channels cancel each other"),
        (np.zeros(0), "holds no sample"),
    ],
)
def test_what_holds_nothing_is_named(tmp_path, samples, message):
    with pytest.raises(ValueError, match=message):
        read_sound(cell(write(tmp_path / "a.wav", samples)), RATE, "row 3")


def test_what_is_no_sound_is_named(tmp_path):
    (tmp_path / "a.wav").write_bytes(b"no sound")
    with pytest.raises(ValueError, match=r"row 3 \(`.*a.wav`\) cannot be read as a sound: .*[^.]\.$"):
        read_sound(cell(tmp_path / "a.wav"), RATE, "row 3")
    with pytest.raises(ValueError, match="row 3 is empty"):
        read_sound(None, RATE, "row 3")


def test_too_short_a_sound_is_named(tmp_path):
    rows = Dataset.from_dict({"audio": [cell(write(tmp_path / f"{n}.wav", tone(200, 0.01 * n))) for n in (9, 1)]})
    rows = rows.cast_column("audio", Audio(decode=False))
    model = hubert()
    least, extractor = least_samples(model.config), Wav2Vec2FeatureExtractor(sampling_rate=RATE)
    frames = [int(model._get_feat_extract_output_lengths(length)) for length in (least - 1, least)]
    assert frames == [0, 1]
    with pytest.raises(ValueError, match=r"row 1 of column `audio` \(.*1.wav`\) has 20 samples at 2000 Hz, and the"):
        with_samples(rows, "audio", extractor, least)
    assert [len(one) for one in with_samples(rows, "audio", extractor)["input_values"]] == [180, 20]


def test_spectrograms_are_made_once(tmp_path):
    rows = Dataset.from_dict({"audio": [cell(write(tmp_path / f"{n}.wav", tone(200, 0.1 * n))) for n in (1, 2)]})
    extractor = ASTFeatureExtractor(num_mel_bins=16, max_length=24)
    ready = with_samples(rows.cast_column("audio", Audio(decode=False)), "audio", extractor).with_format("numpy")
    sounds = [read_sound(one, 16_000, "row") for one in rows["audio"]]
    assert ready[0]["input_values"].shape == (24, 16)
    expected = extractor(sounds, sampling_rate=16_000, return_tensors="pt")["input_values"]
    batch = SoundCollator(extractor)([dict(row) for row in ready])
    torch.testing.assert_close(batch["input_values"], expected)


def test_folders_are_classes_and_splits(tmp_path):
    rows = load(str(write_folder(tmp_path / "flat", count=2)))
    assert sorted(rows["label"]) == [0, 0, 1, 1] and rows.features["audio"] == Audio(decode=False)
    assert rows.features["label"].names == ["high", "low"], "so that two domains are compared by their folders"
    for split in ("train", "test"):
        write_folder(tmp_path / "splits" / split, count=1)
    assert {name: len(one) for name, one in load_splits(str(tmp_path / "splits")).items()} == {"train": 2, "test": 2}


def test_a_table_names_sounds(tmp_path):
    write_folder(tmp_path, count=1)
    (tmp_path / "rows.csv").write_text("file,kind\nlow/0.wav,a\nhigh/0.wav,b\n")
    rows = load(str(tmp_path / "rows.csv"))
    assert rows.features["file"] == Audio(decode=False) and rows[0]["file"]["path"].endswith("low/0.wav")
    (tmp_path / "rows.csv").write_text("file,kind\nlow/0.wav,a\nhigh/1.wav,b\n")
    with pytest.raises(ValueError, match="row 1 of column `file` names the sound `high/1.wav`, and there is no file"):
        load(str(tmp_path / "rows.csv"))
