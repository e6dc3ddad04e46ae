"""Sounds from a folder to a saved model: Wav2Vec2, HuBERT and AST, ranking, both adaptations, prediction."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import ModelCard
from transformers import AutoModelForAudioClassification, Wav2Vec2FeatureExtractor

from hf_transfer.data.bundled import load
from hf_transfer.data.sounds import SoundCollator
from hf_transfer.modeling.readouts import choose_readout
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import ModelArguments, parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import run_prediction
from hf_transfer.runs.task import find_evaluation_task, find_task
from tests import sounds
from tests.marks import slow
from tests.runs.folders import QUICK

pytest.importorskip("soundfile")
MODELS = {"wav2vec2": sounds.wav2vec2, "hubert": sounds.hubert, "ast": sounds.ast}


@pytest.fixture(scope="module")
def studio(tmp_path_factory) -> Path:
    """Tiny models of sound, and tones at two rates."""
    folder = tmp_path_factory.mktemp("studio")
    for name, make in MODELS.items():
        torch.manual_seed(0)
        sounds.save(folder / name, make())
    sounds.write_folder(folder / "tones")
    sounds.write_folder(folder / "other", rate=3000, shift=20)
    return folder


@pytest.fixture
def place(studio, tmp_path, monkeypatch):
    for item in studio.iterdir():
        (tmp_path / item.name).symlink_to(item)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def adapt(*argv: str) -> dict:
    return run_adaptation(parse_arguments([*QUICK, *argv]))


@pytest.mark.parametrize("name", MODELS)
def test_from_a_folder_to_a_saved_model(place, name):
    metrics = adapt("--model", name, "--dataset", "tones", "--test_rows", "4", "--output_dir", "out")
    assert metrics.keys() == {"loss", "accuracy", "macro_f1"}
    model = AutoModelForAudioClassification.from_pretrained("out/model")
    assert model.config.id2label == {0: "high", 1: "low"}
    assert ModelCard.load("out/model/README.md").data.pipeline_tag == "audio-classification"
    assert find_evaluation_task(ModelArguments(model="out/model"), lambda: None) == "audio-classification"
    assert 0 <= run_evaluation("out/model", "other", batch_size=3)["accuracy"] <= 1
    assert run_prediction("out/model", "tones", output=Path("out.csv")) == 16
    with Path("out.csv").open() as file:
        lines = list(csv.DictReader(file))
    assert lines[0].keys() == {"row", "file", "prediction", "probability"} and lines[0]["file"] == "high/0.wav"


def test_domain_adaptation_to_another_rate(place):
    options = ["--dataset", "tones", "--target_dataset", "other", "--test_dataset", "other"]
    peft = ["--peft", "{peft_type: LORA, r: 2, target_modules: [q_proj, v_proj]}"]
    metrics = adapt("--model", "wav2vec2", *options, *peft, "--objectives", "{cdan: {}}", "--output_dir", "out")
    assert {"accuracy", "information_maximization"} <= metrics.keys()


def test_a_new_model_of_an_architecture(place):
    sizes = (
        "{model_type: audio-spectrogram-transformer, hidden_size: 16, num_hidden_layers: 1, num_attention_heads: 2, "
    )
    sizes += "intermediate_size: 16, max_length: 24, num_mel_bins: 16, patch_size: 8}"
    adapt("--architecture", sizes, "--dataset", "tones", "--test_rows", "4", "--output_dir", "out")
    assert find_task(ModelArguments(model="out/model"), lambda: None) == "audio-classification"


def test_ranking_tells_tones_apart_whatever_the_batch(place):
    one, many = (rank_models(["wav2vec2"], load("tones"), batch_size=size, progress=False).best for size in (1, 16))
    assert one.score == pytest.approx(many.score, rel=1e-3)
    ranking = rank_models(["wav2vec2", "hubert", "ast"], load("tones"), progress=False)
    assert len(ranking.scored) == 3 and ranking.best.rows == 16
    leep = rank_models(["wav2vec2"], load("tones"), score="leep", progress=False)
    assert np.isfinite(leep.best.score)


@pytest.mark.parametrize("name", ["wav2vec2", slow("hubert")])
def test_padding_changes_neither_features_nor_logits(name):
    torch.manual_seed(0)
    model = MODELS[name]().eval()
    short, long = (sounds.tone(pitch, seconds) for pitch, seconds in ((100, 0.1), (300, 0.3)))
    collator = SoundCollator(Wav2Vec2FeatureExtractor(sampling_rate=sounds.RATE))
    alone, both = collator([{"input_values": short}]), collator([{"input_values": short}, {"input_values": long}])
    for of in (model, getattr(model, model.base_model_prefix)):
        readout = choose_readout(of)
        found = []
        for batch in (alone, both):
            with readout, torch.no_grad():
                outputs = of(**batch)
            found.append(readout.read(outputs, batch).features[0])
        torch.testing.assert_close(*found, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize(
    ("samples", "message"),
    [
        (np.zeros(300), r"low/9.wav`\) is silent"),
        (sounds.tone(200, 0.005), r"low/9.wav`\) has 10 samples at 2000 Hz, and the model needs 45"),
    ],
)
def test_bad_sounds_are_named_before_training(tmp_path, monkeypatch, studio, samples, message):
    monkeypatch.setattr("transformers.Trainer.train", lambda *args, **kwargs: pytest.fail("training began"))
    folder = sounds.write_folder(tmp_path / "tones", count=1)
    sounds.write(folder / "low" / "9.wav", samples)
    with pytest.raises(ValueError, match=message):
        adapt("--model", str(studio / "hubert"), "--dataset", str(folder), "--output_dir", str(tmp_path / "out"))


def test_rows_without_sounds_are_refused(place):
    Path("rows.csv").write_text("text,label\na,b\nc,d\n")
    options = ["--task", "audio-classification", "--dataset", "rows.csv", "--output_dir", "out"]
    with pytest.raises(ValueError, match=r"found 0 columns of sounds in the training \(`rows.csv`\) dataset"):
        adapt("--model", "wav2vec2", *options)
