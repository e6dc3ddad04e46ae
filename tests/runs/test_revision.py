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
from hf_transfer.modeling.anatomy import linear_heads
from hf_transfer.models.revisions import at_revision, pinned, split_revision
from hf_transfer.multi_model.members import load_member
from hf_transfer.multi_model.pathways import with_labels_of
from hf_transfer.multi_model.ranked_models import ranked_models
from hf_transfer.multi_model.zoo_tuning import loaded_as
from hf_transfer.ranking import rank_models
from hf_transfer.runs.adapt import run_adaptation
from hf_transfer.runs.arguments import parse_arguments
from hf_transfer.runs.models import load_model
from hf_transfer.runs.named_models import names_in, with_names
from hf_transfer.runs.revision import REVISION_FILE, with_revision
from hf_transfer.task_adaptation.source_head import copy_source_head
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
    adapted = load_model(ModelArguments(model=str(result.folder), task="text-classification"))
    base = adapted.get_base_model().base_model
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


# Models beside the one in training.


def test_a_name_may_say_a_revision(here):
    assert split_revision("lab/bert@v2") == ("lab/bert", "v2") and split_revision("lab/bert") == ("lab/bert", None)
    assert split_revision("lab/bert@refs/pr/1") == ("lab/bert", "refs/pr/1")
    for path in ("/models/bert@v2", "./bert@v2", "a/b/c@v2", "bert@v2"):  # `bert` is a folder here
        assert split_revision(path) == (path, None) and pinned(path, "v3") == path
    assert at_revision("lab/bert@v2") == ("lab/bert", {"revision": "v2"}) and at_revision("bert") == ("bert", {})
    assert pinned("lab/bert", None) == "lab/bert" and pinned("lab/bert@v2", "v3") == "lab/bert@v3"
    model = ModelArguments(model="lab/bert@v2")
    assert (model.model, model.revision) == ("lab/bert", "v2")
    with pytest.raises(ValueError, match="names the revision v2 of `lab/bert`, and `revision` is v3: give one"):
        ModelArguments(model="lab/bert@v2", revision="v3")


@pytest.mark.parametrize(
    "load",
    [
        lambda name, first: load_member(name, "teacher").classifier,
        lambda name, first: linear_heads(with_labels_of(first, name))[0],
        lambda name, first: loaded_as(first, name, (), "checkpoints").classifier,
        lambda name, first: copy_source_head(name, first.config.hidden_size),
    ],
    ids=["member", "pathway", "zoo", "source_head"],
)
def test_every_loader_of_members_reads_the_revision(moved, here, load):
    first = load_model(ModelArguments(model="bert", task="text-classification"))
    old = load_file(here / "bert" / "model.safetensors")["classifier.bias"]
    for name, is_old in ((f"{NAME}@{moved[0]}", True), (f"{NAME}@{moved[1]}", False), (NAME, False)):
        assert equal(load(name, first).bias.detach(), old) == is_old


def test_names_of_members_are_found_wherever_a_run_may_have_them():
    arguments = {
        "objectives": {"distillation": {"teacher": ["a", "b"]}, "lwf": {"source_head": "c"}, "l2_sp": None},
        "converters": {"zoo_tuning": {"checkpoints": ["d"], "own_share": 0.5}},
        "architecture": {"model_type": "clip", "text_config": "e", "vision_config": {"hidden_size": 8}},
        "tokenizer": "f",
        "dat": {"classifier": "g", "target": "mnist5k"},
        "model": "h",
    }
    assert names_in(arguments) == list("abcdegf")
    changed = with_names(arguments, str.upper)
    assert changed["objectives"]["distillation"] == {"teacher": ["A", "B"]} and changed["dat"]["target"] == "mnist5k"
    assert changed["model"] == "h" and arguments["tokenizer"] == "f", "the given ones stay"


def test_a_run_goes_on_with_the_teacher_that_it_began_with(moved):
    first, second = moved
    taught = {"model": "bert", "objectives": {"feature_distillation": {"teacher": NAME}}}
    result = run_adaptation(experiment(**taught))
    assert json.loads(Path("out", REVISION_FILE).read_text()) == {"members": {NAME: second}}
    assert f"{NAME}@{second}" in (result.folder / "README.md").read_text()
    Path("out", REVISION_FILE).write_text(json.dumps({"members": {NAME: first}}))
    resumed = with_revision(experiment(**taught, resume=True)).config.objectives
    assert resumed == {"feature_distillation": {"teacher": f"{NAME}@{first}"}}, "not what was pushed since"
    fresh = with_revision(experiment(**taught)).config.objectives
    assert fresh == {"feature_distillation": {"teacher": f"{NAME}@{second}"}}


def test_a_ranking_keeps_the_commits_that_it_ranked(moved, here):
    first, second = moved
    options = {"score": "logme", "layers": "last", "output_dir": "ranks", "progress": False}
    ranking = rank_models([f"{NAME}@{first}", NAME, "bert"], tiny.text_rows(), **options)
    assert {row.model: row.revision for row in ranking.rows if row.model != "bert"} == {
        f"{NAME}@{first}": first,
        NAME: second,
    }
    assert set(ranked_models("ranks", 3)) == {f"{NAME}@{first}", f"{NAME}@{second}", "bert"}
