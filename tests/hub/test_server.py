"""The server of the tests against the real client: what it lists, how it pages, what it refuses."""

import hashlib
import http.client
from pathlib import Path

import numpy as np
import pytest
from huggingface_hub import CommitOperationAdd, CommitOperationDelete, HfApi
from huggingface_hub.errors import (
    EntryNotFoundError,
    GatedRepoError,
    HfHubHTTPError,
    RepositoryNotFoundError,
    RevisionNotFoundError,
)
from safetensors.numpy import save

from tests.hub_store import git_sha1

CONFIG = b'{"model_type": "bert", "architectures": ["BertModel"]}'


def weights(count: int) -> bytes:
    return save({"w": np.zeros(count, dtype=np.float32)})


@pytest.fixture
def zoo(hub):
    """Five models of different owners, sizes, tasks and popularity."""
    hub.add_repo(
        "lab/bert-small", {"config.json": CONFIG, "model.safetensors": weights(1_000)}, downloads=10, tags=("en",)
    )
    hub.add_repo(
        "lab/bert-large",
        {"config.json": CONFIG, "model.safetensors": weights(50_000)},
        downloads=30,
        tags=("en", "de"),
    )
    hub.add_repo(
        "else/vit", {"config.json": b'{"model_type": "vit"}'}, downloads=20, pipeline_tag="image-classification"
    )
    hub.add_repo("else/secret", {"config.json": CONFIG}, downloads=99, private=True)
    hub.add_repo("lab/secret", {"config.json": CONFIG}, downloads=5, private=True)
    hub.requests.clear()
    return hub


def listed(**query) -> list[str]:
    return [model.id for model in HfApi().list_models(**query)]


def test_lists_are_filtered_and_sorted(zoo) -> None:
    assert set(listed()) == {"lab/bert-small", "lab/bert-large", "else/vit", "lab/secret"}, (
        "but not another's private one"
    )
    assert listed(sort="downloads") == ["lab/bert-large", "else/vit", "lab/bert-small", "lab/secret"]
    assert set(listed(author="else")) == {"else/vit"}
    assert set(listed(search="BERT")) == {"lab/bert-small", "lab/bert-large"}
    assert listed(filter=["en", "de"]) == ["lab/bert-large"]
    assert set(listed(filter="bert")) == {"lab/bert-small", "lab/bert-large", "lab/secret"}
    assert listed(pipeline_tag="image-classification") == ["else/vit"]
    assert listed(num_parameters="min:2K,max:1M") == ["lab/bert-large"]
    assert listed(num_parameters="max:0.01M") == ["lab/bert-small"]


def test_lists_come_in_pages(zoo) -> None:
    zoo.page_size = 2
    assert listed(sort="downloads", filter="bert") == ["lab/bert-large", "lab/bert-small", "lab/secret"]
    assert ["cursor=2" in asked["path"] for asked in zoo.requests] == [False, True]
    assert "filter=bert" in zoo.requests[1]["path"]
    zoo.requests.clear()
    assert listed(sort="downloads", limit=3) == ["lab/bert-large", "else/vit", "lab/bert-small"]
    zoo.requests.clear()
    assert listed(sort="downloads", limit=1) == ["lab/bert-large"]
    assert len(zoo.requests) == 1, "the second page is not asked for in vain"


def test_a_list_tells_sizes_without_a_download(zoo) -> None:
    models = {model.id: model for model in HfApi().list_models(expand=["safetensors", "config", "downloads"])}
    assert models["lab/bert-large"].safetensors.total == 50_000
    assert models["lab/bert-large"].safetensors.parameters == {"F32": 50_000}
    assert models["else/vit"].safetensors is None
    assert models["else/vit"].config == {"model_type": "vit"}
    assert all("/resolve/" not in asked["path"] for asked in zoo.requests)


def test_info_tree_refs_and_commits(zoo) -> None:
    api = HfApi()
    info = api.model_info("lab/bert-small", files_metadata=True)
    sizes = {file.rfilename: file.size for file in info.siblings}
    assert sizes["config.json"] == len(CONFIG)
    assert info.siblings[-1].lfs.sha256 == hashlib.sha256(weights(1_000)).hexdigest()
    tree = {file.path: file for file in api.list_repo_tree("lab/bert-small", recursive=True)}
    assert tree["config.json"].blob_id == git_sha1(CONFIG)
    assert tree["model.safetensors"].lfs.size == len(weights(1_000))
    assert [file.path for file in api.get_paths_info("lab/bert-small", ["config.json", "absent"])] == ["config.json"]
    assert [(ref.name, ref.target_commit) for ref in api.list_repo_refs("lab/bert-small").branches] == [
        ("main", info.sha)
    ]
    titles = [commit.title for commit in api.list_repo_commits("lab/bert-small")]
    assert titles == ["add files", "initial commit"]


def test_folders_in_a_tree(hub) -> None:
    hub.add_repo("lab/deep", {"a/b/c.txt": b"c", "a/d.txt": b"d", "e.txt": b"e"})
    api = HfApi()
    assert {entry.path for entry in api.list_repo_tree("lab/deep")} == {".gitattributes", "a", "e.txt"}
    assert {entry.path for entry in api.list_repo_tree("lab/deep", "a")} == {"a/b", "a/d.txt"}
    everything = {entry.path for entry in api.list_repo_tree("lab/deep", recursive=True)}
    assert everything == {".gitattributes", "a", "a/b", "a/b/c.txt", "a/d.txt", "e.txt"}
    with pytest.raises(EntryNotFoundError):
        list(api.list_repo_tree("lab/deep", "absent"))


def test_who_may_see_what(zoo) -> None:
    zoo.add_repo("else/gated", {"config.json": CONFIG}, gated=True)
    assert HfApi(token=zoo.token).model_info("lab/secret").private
    for token in (zoo.stranger_token, False):
        with pytest.raises(HfHubHTTPError) as caught:
            HfApi(token=token).model_info("lab/secret")
        assert isinstance(caught.value, RepositoryNotFoundError)
    assert HfApi().model_info("else/gated").gated == "manual"
    with pytest.raises(GatedRepoError):
        HfApi().hf_hub_download("else/gated", "config.json")
    with pytest.raises(RevisionNotFoundError):
        HfApi().model_info("lab/bert-small", revision="absent")
    with pytest.raises(HfHubHTTPError, match="401"):
        HfApi(token="hf_wrong").model_info("lab/bert-small")
    assert not HfApi().file_exists("lab/bert-small", "absent.json")


def test_commits_change_delete_and_notice_others(hub) -> None:
    first = hub.add_repo("lab/tiny", {"a/x.txt": b"x", "a/y.txt": b"y", "keep.txt": b"k", "old.txt": b"o"})
    changes = [CommitOperationAdd("new.txt", b"n"), CommitOperationDelete("old.txt"), CommitOperationDelete("a/")]
    HfApi().create_commit("lab/tiny", changes, commit_message="change", parent_commit=first.sha)
    files = hub.files("lab/tiny")
    assert set(files) == {".gitattributes", "keep.txt", "new.txt"}
    with pytest.raises(HfHubHTTPError, match="412"):
        HfApi().create_commit(
            "lab/tiny", [CommitOperationAdd("late.txt", b"l")], commit_message="late", parent_commit=first.sha
        )
    assert hub.files("lab/tiny", first.sha)["old.txt"] == b"o", "history stays"


def test_repositories_are_made_and_deleted_by_their_owners(hub) -> None:
    api = HfApi()
    assert api.create_repo("lab/new", private=True).repo_id == "lab/new"
    with pytest.raises(HfHubHTTPError, match="409"):
        api.create_repo("lab/new")
    assert api.create_repo("lab/new", exist_ok=True).repo_id == "lab/new"
    for token, name in ((hub.read_token, "lab/other"), (hub.stranger_token, "lab/other")):
        with pytest.raises(HfHubHTTPError, match="403"):
            api.create_repo(name, token=token)
    with pytest.raises(HfHubHTTPError):
        api.delete_repo("lab/new", token=hub.stranger_token)
    api.delete_repo("lab/new")
    assert not api.repo_exists("lab/new")


def test_an_upload_must_be_signed_and_whole(hub) -> None:
    content = b"weights"
    oid = hashlib.sha256(content).hexdigest()
    for path, body, status in (
        (f"/lfs/{oid}?size=7&signature=forged", content, 403),
        (f"/lfs/{oid}?size=7&signature={hub.sign(oid)}", b"weighty", 400),
        (f"/lfs/{oid}?size=8&signature={hub.sign(oid)}", content, 400),
        (f"/lfs/{oid}?size=7&signature={hub.sign(oid)}", content, 200),
    ):
        connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
        connection.request("PUT", path, body=body)
        assert connection.getresponse().status == status
        connection.close()
    assert hub.store.lfs_blob(oid).size == 7


def test_ranges(hub) -> None:
    hub.add_repo("lab/tiny", {"digits.txt": b"0123456789"})
    for asked, status, body in ((None, 200, b"0123456789"), ("bytes=4-", 206, b"456789"), ("bytes=2-3", 206, b"23")):
        connection = http.client.HTTPConnection(hub.endpoint.removeprefix("http://"))
        connection.request("GET", "/lab/tiny/resolve/main/digits.txt", headers={"Range": asked} if asked else {})
        answer = connection.getresponse()
        assert (answer.status, answer.read()) == (status, body)
        assert answer.headers["ETag"] == f'"{git_sha1(b"0123456789")}"'
        connection.close()


def test_datasets_are_served_too(hub) -> None:
    hub.add_repo("lab/data", {"train.csv": b"a,b\n1,2\n"}, kind="datasets")
    path = HfApi().hf_hub_download("lab/data", "train.csv", repo_type="dataset")
    assert Path(path).read_bytes() == b"a,b\n1,2\n"
