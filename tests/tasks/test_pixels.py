"""Image-GPT from the arguments to the saved folder, its probes and a classifier that starts from it."""

import json
from pathlib import Path

import numpy as np
import pytest
from transformers import AutoImageProcessor, ImageGPTForImageClassification

from hf_transfer.runs.adapt import run_adaptation, run_pretraining
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.evaluate import run_evaluation
from hf_transfer.runs.predict import run_prediction
from tests.runs.folders import QUICK, save_digits

GPT = {"model_type": "imagegpt", "n_embd": 16, "n_layer": 2, "n_head": 2}
SMALL = {"hidden_size": 16, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 16}
FLOW = {"model_type": "flowformer", "modality": "text", **SMALL}


@pytest.fixture
def here(tmp_path, monkeypatch) -> Path:
    monkeypatch.chdir(tmp_path)
    save_digits(tmp_path / "digits", 0, 40)
    return tmp_path


def arguments(task: str, architecture: dict, *more: str) -> list[str]:
    asked = ["--task", task, "--architecture", json.dumps(architecture), "--dataset", "digits", "--test_rows", "8"]
    pixels = ["--pixels", "{clusters: 5, size: 6}"] if "--pixels" not in more else []
    return [*asked, *pixels, *QUICK, "--output_dir", "out", *more]


@pytest.mark.parametrize(
    ("task", "architecture"),
    [
        ("causal-image-modeling", GPT),
        ("causal-image-modeling", {**GPT, "model_type": "gpt2"}),
        ("causal-image-modeling", FLOW),
        ("masked-pixel-modeling", FLOW),
        ("masked-pixel-modeling", {"model_type": "bert", **SMALL}),
    ],
)
def test_a_run_is_probed_and_saves_its_colours(here, task, architecture):
    probes = ["--transfer_probes", "{digits: digits}", "--eval_strategy", "steps", "--eval_steps", "2"]
    metrics = run_pretraining(parse_arguments(arguments(task, architecture, *probes)))
    assert 0 < metrics["loss"] < 4 and 0 <= metrics["digits_linear_probe"] <= 1
    processor = AutoImageProcessor.from_pretrained("out/model")
    assert np.asarray(processor.clusters).shape == (5, 3)
    config = json.loads(Path("out/model/config.json").read_text())
    assert config["vocab_size"] == 6 and 37 in (config.get("n_positions"), config.get("max_position_embeddings"))


def test_a_classifier_starts_from_it(here):
    run_pretraining(parse_arguments(arguments("causal-image-modeling", GPT)))
    _, report = ImageGPTForImageClassification.from_pretrained("out/model", output_loading_info=True)
    assert not any(key.startswith("transformer.") for key in report["missing_keys"])
    adapted = ["--model", "out/model", "--task", "image-classification", "--dataset", "digits"]
    adapted += ["--test_dataset", "digits", *QUICK, "--output_dir", "adapted"]
    measured = run_adaptation(parse_arguments(adapted))
    again = run_evaluation("adapted/model", "digits")
    assert again["loss"] == pytest.approx(measured["loss"], rel=1e-5) and again["accuracy"] == measured["accuracy"]
    assert run_prediction("adapted/model", "digits", output=Path("answers.csv")) == 40


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--pixels", "{colours: 3}"], r"`pixels` has no \['colours'\], accepted: \['clusters', 'seed', 'size'\]"),
        (["--pixels", "{clusters: 1}"], "`clusters` should be positive"),
        (["--task", "masked-image-modeling"], "`pixels` = .* would be ignored"),
    ],
)
def test_a_wrong_argument_is_refused(here, more, message):
    with pytest.raises(ValueError, match=message):
        run_pretraining(parse_arguments(arguments("causal-image-modeling", GPT, *more)))
