"""A run from a model on the Hub starts from one commit, says which, and goes on from the same after a push."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch import equal
from transformers import BertForSequenceClassification

from hf_transfer.hub import HubError, commit_of, is_commit
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.models import load_model
from hf_transfer.runs.revision import REVISION_FILE, with_revision
from hf_transfer.tasks.arguments import ModelArguments
from tests import tiny
from tests.runs.folders import save_text_model

NAME = "lab/bert"
RUN = {"dataset": "books.csv", "output_dir": "out", "max_steps": 1, "save_strategy": "no", "report_to": []}
RUN |= {"per_device_train_batch_size": 8, "use_cpu": True, "test_rows": 4}


@pytest.fixture
def moved(here, hub):
    """The commits of a model that was pushed twice, with other weights; first the older one."""
    first = hub.add_folder(NAME, here / "bert").sha
    model = BertForSequenceClassification(tiny.bert().config)
    model.classifier.bias.data.fill_(1.0)
    blob = {"model.safetensors": hub.store.keep(saved(save_text_model(Path("newer"), model)), True)}
    repo = hub.store.find("models", NAME)
    second = hub.store.add_commit(repo, "main", "other weights", {**repo.branches["main"].files, **blob}).sha
    shutil.rmtree("newer")
    return first, second


def saved(folder: Path) -> bytes:
    return (folder / "model.safetensors").read_bytes()


def experiment(**changes):
    return parse_arguments([], **{**RUN, "model": NAME, **changes})


def test_a_branch_becomes_the_commit_that_it_means(moved, monkeypatch):
    first, second = moved
    assert first != second and is_commit(first) and not is_commit("main") and not is_commit(None)
    assert commit_of(NAME) == commit_of(NAME, "main") == second and commit_of(NAME, first) == first
    assert commit_of("lab/nothing") is None
    with pytest.raises(HubError, match="no such revision"):
        commit_of(NAME, "v9")
    load_model(ModelArguments(model=NAME, revision=first, task="text-classification"))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    assert commit_of(NAME, first) == first and commit_of("lab/nothing") is None


def test_weights_are_those_of_the_revision(moved, here):
    old = load_file(here / "bert" / "model.safetensors")["classifier.bias"]
    for revision, is_old in ((moved[0], True), (moved[1], False), (None, False)):
        model = load_model(ModelArguments(model=NAME, revision=revision, task="text-classification"))
        assert equal(model.classifier.bias, old) == is_old


def test_a_run_says_which_commit_it_began_with_and_goes_on_from_it(moved, hub):
    first, second = moved
    result = run_adaptation(
        experiment(revision=first, peft={"peft_type": "LORA", "r": 2, "target_modules": ["query"]})
    )
    facts = json.loads((result.folder / "results.json").read_text())
    assert facts["base_model"] == NAME and facts["base_model_revision"] == first and "accuracy" in facts
    assert json.loads((result.folder / "training_log.json").read_text())["base_model_revision"] == first
    assert first in (result.folder / "README.md").read_text()
    assert json.loads((result.folder / "adapter_config.json").read_text())["revision"] == first
    assert json.loads(Path("out", REVISION_FILE).read_text()) == {"base_model": NAME, "base_model_revision": first}
    # the base of the saved adapter is of that commit too
    base = load_model(ModelArguments(model=str(result.folder), task="text-classification")).base_model
    stored = load_file(Path("bert/model.safetensors"))
    assert equal(base.embeddings.word_embeddings.weight, stored["bert.embeddings.word_embeddings.weight"])

    assert with_revision(experiment(resume=True)).model.revision == first, "not what was pushed since"
    assert with_revision(experiment(resume=True, revision="main")).model.revision == first
    assert with_revision(experiment()).model.revision == second
    with pytest.raises(ValueError, match=f"was begun from the commit {first}"):
        with_revision(experiment(resume=True, revision=second))


def test_folders_and_new_models_have_no_revision(here):
    assert with_revision(experiment(model="bert")).model.revision is None
    with pytest.raises(ValueError, match="`bert` is a folder on this machine"):
        with_revision(experiment(model="bert", revision="main"))
    with pytest.raises(ValueError, match="`revision` is of a `model` on the Hub"):
        ModelArguments(architecture={"model_type": "bert"}, revision="main")
