"""Pushing over real HTTP: what arrives, what is asked first, and what every failure says."""

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from huggingface_hub import HfApi, ModelCard, constants
from peft import AutoPeftModel, LoraConfig, get_peft_model
from transformers import AutoModelForSequenceClassification

from hf_transfer.hub import HubError, check_can_push, push_command, push_folder, retry
from hf_transfer.models.flowformer import FlowformerForSequenceClassification
from tests.models.flowformer.tiny import tiny_config

RELOAD = """
import hf_transfer, sys, torch
from transformers import AutoModelForSequenceClassification
heavy = {"datasets", "pandas", "peft", "sklearn"} & set(sys.modules)
for name in ("lab/tiny", "lab/flow"):
    model = AutoModelForSequenceClassification.from_pretrained(name)
    print(model(torch.arange(6).reshape(1, 6)).logits.flatten().tolist())
print(sorted(heavy))
"""


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the card, which names the repository on the Hub."""
    files = [path for path in folder.rglob("*") if path.is_file() and path.name != "README.md"]
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in files}


def sent(hub, method: str, part: str) -> list[str]:
    return [asked["path"] for asked in hub.requests if asked["method"] == method and part in asked["path"]]


@pytest.mark.slow
def test_a_model_and_one_of_our_architecture_arrive_and_load_in_a_fresh_process(
    hub, tiny_model: Path, tmp_path: Path
) -> None:
    commit = push_folder(tiny_model, "lab/tiny")
    assert commit.commit_url == f"{hub.endpoint}/lab/tiny/commit/{commit.oid}"
    assert hub.files("lab/tiny").items() >= contents(tiny_model).items()
    info = HfApi().model_info("lab/tiny")
    assert (info.pipeline_tag, info.library_name, info.private) == ("text-classification", "transformers", False)
    assert info.card_data.eval_results[0].metric_value == 0.75
    flow = tmp_path / "flow"
    FlowformerForSequenceClassification(tiny_config()).save_pretrained(flow)
    shutil.copy(tiny_model / "README.md", flow)
    push_folder(flow, "lab/flow")

    environment = hub.environment(tmp_path / "home")
    fresh = subprocess.run([sys.executable, "-c", RELOAD], env=environment, capture_output=True, text=True)
    assert fresh.returncode == 0, fresh.stderr
    *printed, heavy = fresh.stdout.strip().splitlines()
    for folder, line in zip((tiny_model, flow), printed, strict=True):
        model = AutoModelForSequenceClassification.from_pretrained(folder)
        expected = model(torch.arange(6).reshape(1, 6)).logits.flatten().tolist()
        assert eval(line) == pytest.approx(expected, abs=1e-6)
    assert heavy == "[]", "registering our architectures imports more than they need"


def test_small_files_go_regular_and_30_megabytes_through_lfs(hub, large_model: Path) -> None:
    push_folder(large_model, "lab/large")
    assert hub.files("lab/large")["model.safetensors"] == (large_model / "model.safetensors").read_bytes()
    assert len(sent(hub, "PUT", "/lfs/")) == 1
    tree = {file.path: file for file in HfApi().list_repo_tree("lab/large")}
    assert tree["model.safetensors"].lfs.size == (large_model / "model.safetensors").stat().st_size > 30_000_000
    assert tree["config.json"].lfs is None


def test_pushing_again_sends_only_what_changed(hub, large_model: Path, tmp_path: Path) -> None:
    folder = shutil.copytree(large_model, tmp_path / "large")
    first = push_folder(folder, "lab/large")
    hub.requests.clear()
    assert push_folder(folder, "lab/large").oid == first.oid, "nothing changed, so there is no commit"
    assert sent(hub, "PUT", "/lfs/") == sent(hub, "POST", "/commit/") == []
    for repo_id in ("lab/large", "lab/copy"):  # the same weights elsewhere are already in the storage
        (folder / "config.json").write_text(f'{{"model_type": "bert", "_name": "{repo_id}"}}')
        push_folder(folder, repo_id)
    assert sent(hub, "PUT", "/lfs/") == []
    assert b"lab/copy" in hub.files("lab/copy")["config.json"]


def test_a_bare_name_belongs_to_the_account_of_the_token(hub, tiny_model: Path) -> None:
    assert push_folder(tiny_model, "tiny").repo_url.repo_id == "tester/tiny"
    assert "config.json" in hub.files("tester/tiny")


def test_whether_a_push_could_be_made_is_known_before_there_is_a_model(hub) -> None:
    assert check_can_push("tiny") == "tester/tiny" and check_can_push("lab/tiny") == "lab/tiny"
    with pytest.raises(HubError, match="this token may only read"):
        check_can_push("lab/tiny", token=hub.read_token)


def test_private_and_the_branch_are_as_asked(hub, tiny_model: Path) -> None:
    push_folder(tiny_model, "lab/tiny", private=True, revision="dev/x", commit_message="try it")
    assert HfApi().model_info("lab/tiny").private is True
    assert "config.json" in hub.files("lab/tiny", "dev/x")
    assert "config.json" not in hub.files("lab/tiny", "main")
    assert HfApi().list_repo_commits("lab/tiny", revision="dev/x")[0].title == "try it"


def test_private_is_never_pushed_into_a_public_repository(hub, tiny_model: Path) -> None:
    hub.add_repo("lab/tiny", {})
    with pytest.raises(HubError, match="it exists and is public"):
        push_folder(tiny_model, "lab/tiny", private=True)
    assert "config.json" not in hub.files("lab/tiny")


def test_what_only_a_resumed_training_reads_stays_here(hub, tiny_model: Path) -> None:
    names = [
        "checkpoint-10/optimizer.pt",
        "training_args.bin",
        "objectives.safetensors",
        "resume.json",
        "scheduler.pt",
    ]
    names += ["trainer_state.json", "rng_state.pth", "runs/events", "source_only/model/config.json"]
    names += ["figures/a.png"]
    for name in [*names, "plots/losses.png"]:
        (tiny_model / name).parent.mkdir(parents=True, exist_ok=True)
        (tiny_model / name).write_bytes(b"large")
    push_folder(tiny_model, "lab/tiny")
    assert not set(names) & set(hub.files("lab/tiny"))
    assert "plots/losses.png" in hub.files("lab/tiny")


def test_the_card_on_the_hub_loads_the_repository(hub, tiny_model: Path) -> None:
    before = (tiny_model / "README.md").read_text()
    assert 'from_pretrained("tiny")' in before
    push_folder(tiny_model, "lab/other")
    card = hub.files("lab/other")["README.md"].decode()
    assert 'from_pretrained("lab/other")' in card and "\n# other\n" in card
    assert ModelCard(card).data.model_name == "other"
    assert (tiny_model / "README.md").read_text() == before, "the folder's own card still loads the folder"


def test_a_card_of_somebody_elses_hand_stays_as_it_is(hub, tiny_model: Path) -> None:
    text = '---\nlicense: mit\n---\n# Mine\nLike `AutoModel.from_pretrained("lab/base")`.\n'
    (tiny_model / "README.md").write_text(text)
    push_folder(tiny_model, "lab/tiny")
    assert hub.files("lab/tiny")["README.md"].decode() == text


class TestAdapters:
    """An adapter is published only where everybody can have its base."""

    @pytest.fixture
    def adapter(self, tiny_model: Path, tmp_path: Path) -> Path:
        model = AutoModelForSequenceClassification.from_pretrained(tiny_model)
        folder = tmp_path / "adapter"
        get_peft_model(model, LoraConfig(target_modules=["query"])).save_pretrained(folder)
        shutil.copy(tiny_model / "README.md", folder)
        return folder

    def test_on_a_local_base_is_refused(self, hub, adapter: Path) -> None:
        with pytest.raises(ValueError, match=r"is an adapter of the folder `.*tiny` of this machine.*--base-model"):
            push_folder(adapter, "lab/adapter")
        assert not hub.store.repos

    def test_on_a_base_that_was_never_saved_is_refused(self, hub, adapter: Path) -> None:
        rename_base(adapter, None)
        with pytest.raises(ValueError, match="of a model that was never saved"):
            push_folder(adapter, "lab/adapter")
        rename_base(adapter, "/gone/away")
        with pytest.raises(ValueError, match="of the folder `/gone/away`"):
            push_folder(adapter, "lab/adapter")
        assert not hub.store.repos

    def test_on_a_base_of_the_hub_loads_for_everybody(self, hub, adapter: Path, tiny_model: Path) -> None:
        with pytest.raises(HubError, match="no such repository"):
            push_folder(adapter, "lab/adapter", base_model="lab/base")
        push_folder(tiny_model, "lab/base")
        push_folder(adapter, "lab/adapter", base_model="lab/base")
        config = json.loads(hub.files("lab/adapter")["adapter_config.json"])
        assert config["base_model_name_or_path"] == "lab/base" and config["target_modules"] == ["query"]
        assert AutoPeftModel.from_pretrained("lab/adapter", num_labels=3).config.num_labels == 3

    def test_a_whole_model_has_no_base(self, hub, tiny_model: Path) -> None:
        with pytest.raises(ValueError, match="`base_model` is for adapters"):
            push_folder(tiny_model, "lab/tiny", base_model="lab/base")


def rename_base(adapter: Path, base: str | None) -> None:
    path = adapter / "adapter_config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": base}))


def test_the_command_that_pushes() -> None:
    assert push_command("out/my model", "lab/tiny") == "hf-transfer push 'out/my model' lab/tiny"
    assert push_command("out", "lab/tiny", private=True).endswith("lab/tiny --private")


def test_trouble_of_the_hub_at_any_step_is_outlived(hub, tiny_model: Path) -> None:
    for path in ("whoami", "validate-yaml", "/api/repos/create", "/commit/"):
        hub.fail(503, path=path)
    push_folder(tiny_model, "lab/tiny")
    assert [asked["status"] for asked in hub.requests].count(503) == 4
    assert hub.files("lab/tiny").items() >= contents(tiny_model).items()


def test_a_concurrent_commit_is_outlived(hub, tiny_model: Path) -> None:
    hub.fail(412, path="/commit/")
    hub.fail(409, path="/commit/")
    push_folder(tiny_model, "lab/tiny")
    assert "config.json" in hub.files("lab/tiny")


@pytest.mark.parametrize(
    ("fault", "sentence"),
    [
        ({"kind": 503, "path": "/commit/", "times": 9}, "the Hub is in trouble (503"),
        ({"kind": 403, "path": "/commit/"}, "this token may not do that (403"),
        ({"kind": 404, "path": "/preupload/", "code": "RepoNotFound"}, "no such repository"),
        ({"kind": 413, "path": "/lfs/", "method": "PUT"}, "a file is too large for one upload (413"),
        (
            {"kind": 429, "path": "/api/repos/create", "times": 9, "retry_after": 900},
            "too many requests (429). Wait 900",
        ),
    ],
    ids=["commit-503", "commit-403", "preupload-404", "lfs-413", "create-429"],
)
def test_each_failure_is_one_paragraph_that_says_what_to_do(hub, tiny_model: Path, fault, sentence: str) -> None:
    hub.fail(**fault)
    with pytest.raises(HubError) as caught:
        push_folder(tiny_model, "lab/tiny")
    assert str(caught.value).startswith(f"Pushing to 'lab/tiny' failed: {sentence}")


def test_a_dead_hub(hub, tiny_model: Path, monkeypatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    with pytest.raises(HubError, match=r"the connection to http://127\.0\.0\.1:9 broke"):
        push_folder(tiny_model, "lab/tiny")


class TestBeforeAnythingIsSent:
    """Everything that can be known to fail is asked before the repository is made."""

    @pytest.fixture(autouse=True)
    def nothing_sent(self, hub):
        yield
        assert not hub.store.repos
        assert sent(hub, "POST", "/api/repos/create") == []

    def refused(self, error: type[Exception], match: str, folder: Path, repo_id: str = "lab/tiny", **options) -> None:
        with pytest.raises(error, match=match):
            push_folder(folder, repo_id, **options)

    def test_no_folder(self, hub, tmp_path: Path) -> None:
        self.refused(ValueError, "is no folder", tmp_path / "absent")

    def test_no_model(self, hub, tmp_path: Path) -> None:
        self.refused(ValueError, "neither config.json nor adapter_config.json", tmp_path)
        (tmp_path / "config.json").write_text("{}")
        (tmp_path / "training_args.bin").write_bytes(b"no weights")
        self.refused(ValueError, "no weights", tmp_path)

    def test_no_card(self, hub, tiny_model: Path) -> None:
        (tiny_model / "README.md").unlink()
        self.refused(ValueError, "has no model card", tiny_model)

    def test_a_card_that_the_hub_refuses(self, hub, tiny_model: Path) -> None:
        card = tiny_model / "README.md"
        card.write_text(card.read_text().replace("license: apache-2.0", "license: 3"))
        self.refused(ValueError, "The Hub refuses the metadata of", tiny_model)

    @pytest.mark.parametrize("name", ["lab/tiny/more", "lab/ti ny", "-tiny", ""])
    def test_no_name(self, hub, tiny_model: Path, name: str) -> None:
        self.refused(HubError, "is no repository name", tiny_model, name)

    def test_no_token(self, hub, tiny_model: Path, monkeypatch) -> None:
        monkeypatch.delenv("HF_TOKEN")
        self.refused(HubError, "no access token was found. Log in with `hf auth login`", tiny_model)

    def test_a_wrong_token(self, hub, tiny_model: Path) -> None:
        self.refused(HubError, r"the token was refused \(401", tiny_model, token="hf_wrong")

    def test_a_token_that_may_only_read(self, hub, tiny_model: Path) -> None:
        self.refused(HubError, "this token may only read", tiny_model, token=hub.read_token)


def test_somebody_elses_namespace(hub, tiny_model: Path) -> None:
    with pytest.raises(HubError, match=r"may not do that \(403: .*write access to 'lab'"):
        push_folder(tiny_model, "lab/tiny", token=hub.stranger_token)
    assert not hub.store.repos
