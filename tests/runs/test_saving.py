import json

import numpy as np
import pytest
from datasets import load_from_disk
from transformers import EvalPrediction

from hf_transfer import TaskAdaptationTrainer, TransferConfig
from hf_transfer.hub import MetricFact, RunFacts
from hf_transfer.runs.saving import (
    dataset_fact,
    keywords_of,
    metrics_of,
    read_results,
    save_run,
    save_translation,
    training_facts,
)
from hf_transfer.task_adaptation.bss import BSS
from hf_transfer.training.alternating_trainer import AlternatingTrainer
from hf_transfer.training.converters import convert_model
from tests import tiny


@pytest.fixture
def trainer(tmp_path, digits):
    config = TransferConfig(str(tmp_path / "run"), report_to=[], use_cpu=True, objectives={"bss": {"weight": 0.5}})
    return TaskAdaptationTrainer(tiny.vit(), config, train_dataset=digits)


def test_the_metrics_are_those_of_the_models_problem():
    config = tiny.vit(2).config
    logits = np.array([[1.0, 0.0], [0.0, 1.0], [0.0, 1.0]])
    found = metrics_of(config)(EvalPrediction(logits, np.array([0, 0, -100])))
    assert found == {"accuracy": 0.5, "macro_f1": pytest.approx(1 / 3)}
    compute = metrics_of(config)
    config.problem_type = "regression"  # as a trainer settles it
    assert compute(EvalPrediction(logits, np.zeros((3, 2))))["mean_absolute_error"] == 0.5


def test_converters_are_methods_of_the_card(tmp_path, digits):
    model = convert_model(tiny.vit(), {"mix_style": {"p": 0.3}})
    trainer = TaskAdaptationTrainer(model, TransferConfig(str(tmp_path), report_to=[]), train_dataset=digits)
    (method,) = training_facts(trainer)["methods"]
    assert (method.name, method.paper, method.hyper_parameters) == ("mix_style", "2104.02008", {"p": 0.3})


def test_facts_are_those_of_the_trainer(trainer):
    facts = training_facts(trainer)
    (method,) = facts["methods"]
    assert (method.name, method.paper) == ("BSS", BSS.paper)
    assert method.hyper_parameters["weight"] == 0.5
    assert facts["hyper_parameters"]["learning_rate"] == trainer.args.learning_rate
    assert json.dumps(facts["hyper_parameters"])


def test_keywords_are_plain_values():
    assert keywords_of(BSS(k=2, weight=0.5)) == {"k": 2, "weight": 0.5}


def test_a_run_is_saved_whole_and_read_back(trainer, tmp_path):
    folder = tmp_path / "saved"
    assert read_results(folder) is None
    facts = RunFacts("saved", "image-classification", "AutoModel", metrics=[MetricFact("accuracy", 0.5, "digits")])
    save_run(trainer, folder, {"accuracy": 0.5}, facts)
    assert read_results(folder) == {"accuracy": 0.5}
    assert {"README.md", "config.json", "model.safetensors"} <= {item.name for item in folder.iterdir()}
    with pytest.raises(FileExistsError):
        save_run(trainer, folder, {"accuracy": 0.6}, None)
    save_run(trainer, folder, {"accuracy": 0.6}, None, overwrite=True)
    assert read_results(folder) == {"accuracy": 0.6}
    assert not (folder / "README.md").exists(), "nothing of the folder before is left"


def test_only_what_is_elsewhere_is_a_hub_dataset(tmp_path):
    assert dataset_fact("mnist5k", "source", 3).hub_id is None
    assert dataset_fact(str(tmp_path), "source", 3).hub_id is None
    assert dataset_fact("org/name", "source", 3).hub_id == "org/name"


def test_a_translated_dataset_is_saved_and_replaced(tmp_path, digits, trainer):
    config = TransferConfig(str(tmp_path / "run"), report_to=[], use_cpu=True)
    objectives = {"cyclegan": {"width": 2, "blocks": 1}}
    translating = AlternatingTrainer(tiny.vit(), config, train_dataset=tiny.two_domains(digits), objectives=objectives)
    for rows in (3, 2):
        save_translation(translating, tmp_path / "translated", digits.select(range(rows)))
        read = load_from_disk(tmp_path / "translated")
        assert read["labels"][:] == digits.with_format(None)["labels"][:rows]
        assert read[0]["image"].size == (tiny.IMAGE_SIZE, tiny.IMAGE_SIZE)
    save_translation(trainer, tmp_path / "nothing", digits)
    assert not (tmp_path / "nothing").exists()
