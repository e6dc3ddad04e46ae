import threading

import pytest

from hf_transfer.hub import HubError, retry
from hf_transfer.ranking import find_models
from hf_transfer.ranking.candidates import Access, Fetched, fetch, fetched_ahead, read_models


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)


def unknown(name, revision):
    return False


def test_names_from_a_list_a_name_and_a_file(tmp_path):
    assert read_models(["a", "lab/b", "a"]) == ["a", "lab/b"]
    assert read_models("lab/b") == ["lab/b"]
    assert read_models(tmp_path) == [str(tmp_path)]
    (tmp_path / "names.txt").write_text("lab/a\n\n# a comment\nlab/b  # another\n")
    assert read_models(tmp_path / "names.txt") == read_models(str(tmp_path / "names.txt")) == ["lab/a", "lab/b"]
    with pytest.raises(ValueError, match="no candidates"):
        read_models([])


def test_a_query_reads_lists_only(hub, zoo):
    for name, downloads in (("vit0", 5), ("vit1", 9), ("bert", 7)):
        tags = ("vit",) if name.startswith("vit") else ("bert",)
        hub.add_folder(f"lab/{name}", zoo / name, downloads=downloads, tags=tags)
    hub.add_folder("tester/vit0", zoo / "vit0")
    assert find_models(author="lab") == ["lab/vit1", "lab/bert", "lab/vit0"]
    assert find_models(author="lab", filter="vit") == ["lab/vit1", "lab/vit0"]
    assert find_models(search="vit0", limit=1) == ["lab/vit0"]
    assert find_models(author="lab", max_params=100) == []
    assert all(asked["path"].startswith("/api/models?") for asked in hub.requests)


def test_a_query_over_several_pages(hub, zoo):
    hub.page_size = 2
    for number in range(5):
        hub.add_repo(f"lab/m{number}", {"config.json": b"{}"}, downloads=number)
    assert find_models(author="lab") == [f"lab/m{number}" for number in (4, 3, 2, 1, 0)]


def test_a_failed_query_is_one_sentence(hub):
    hub.fail(401, path="/api/models", times=9)
    with pytest.raises(HubError, match="Listing models of 'lab' failed: the token was refused"):
        find_models(author="lab")


def test_fetched_from_the_hub_and_freed(hub, zoo, tmp_path):
    hub.add_folder("lab/vit", zoo / "vit0")
    fetched = fetch("lab/vit", Access(cache_dir=str(tmp_path), free_disk=True), unknown)
    assert (fetched.folder / "model.safetensors").is_file() and fetched.revision == fetched.folder.name
    assert fetched.removable == tmp_path / "models--lab--vit"
    assert fetch("lab/vit", Access(cache_dir=str(tmp_path), free_disk=True), unknown).removable is None


def test_a_known_result_is_not_downloaded(hub, zoo, tmp_path):
    commit = hub.add_folder("lab/vit", zoo / "vit0")
    asked = []

    def known(name, revision):
        asked.append((name, revision))
        return True

    fetched = fetch("lab/vit", Access(cache_dir=str(tmp_path)), known)
    assert fetched == Fetched("lab/vit", None, commit.sha) and asked == [("lab/vit", commit.sha)]
    assert not any("resolve" in request["path"] for request in hub.requests)
    assert fetch(str(zoo / "vit0"), Access(), known).folder is None


def test_too_many_parameters_are_not_downloaded(hub, zoo, tmp_path):
    hub.add_folder("lab/vit", zoo / "vit0")
    with pytest.raises(ValueError, match=r"more than `max_params` \(1,000\)"):
        fetch("lab/vit", Access(cache_dir=str(tmp_path), max_params=1000), unknown)
    assert not any("resolve" in request["path"] for request in hub.requests)


def test_a_failed_download_leaves_nothing_behind(hub, zoo, tmp_path):
    hub.add_folder("lab/vit", zoo / "vit0")
    hub.fail("flip", path="model.safetensors", method="GET", times=9, after=500)
    with pytest.raises(HubError, match="another checksum"):
        fetch("lab/vit", Access(cache_dir=str(tmp_path), free_disk=True), unknown)
    assert not (tmp_path / "models--lab--vit").exists()


def test_the_next_one_is_fetched_while_the_present_one_is_used():
    began = {name: threading.Event() for name in "abc"}

    def get(name):
        began[name].set()
        return Fetched(name, None, None)

    with fetched_ahead("abc", get) as candidates:
        for name, future in candidates:
            assert future.result().name == name
            following = chr(ord(name) + 1)
            if following in began:
                assert began[following].wait(5)
            assert not any(began[later].is_set() for later in began if later > following)
