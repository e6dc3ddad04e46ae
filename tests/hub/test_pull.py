"""Pulling over real HTTP: names, access, damage, interruption, and the cache when there is no Hub."""

from pathlib import Path

import pytest
from huggingface_hub import constants

from hf_transfer.hub import HubError, local_model_folder, pull, pull_model, retry
from tests.hub.test_push import contents

CONFIG = b'{"model_type": "bert"}'


@pytest.fixture(autouse=True)
def quick(monkeypatch) -> None:
    monkeypatch.setattr(retry, "sleep", lambda seconds: None)


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


def downloads(hub, name: str) -> list[dict]:
    return [asked for asked in hub.requests if asked["method"] == "GET" and asked["path"].endswith(f"/{name}")]


class TestNames:
    def test_a_namespaced_and_a_bare_name(self, hub, tiny_model: Path, cache: Path) -> None:
        hub.add_folder("lab/tiny", tiny_model)
        hub.add_alias("tiny-base", "lab/tiny")
        for name in ("lab/tiny", "tiny-base"):
            pulled = contents(pull_model(name, cache_dir=cache))
            del pulled[".gitattributes"]
            assert pulled == contents(tiny_model)

    def test_a_folder_here_wins(self, hub, tiny_model: Path, monkeypatch) -> None:
        hub.add_repo("tiny", {"config.json": b"{}"})
        monkeypatch.chdir(tiny_model.parent)
        assert pull_model("tiny") == Path("tiny")
        assert pull_model(tiny_model) == tiny_model
        assert hub.requests == []
        with pytest.raises(ValueError, match="`revision` is for the Hub"):
            pull_model("tiny", revision="main")

    def test_what_can_only_be_a_path_is_not_asked_of_the_hub(self, hub, tmp_path: Path) -> None:
        for path in (tmp_path / "absent", f"{tmp_path}/absent", "./absent", "~/surely/absent"):
            with pytest.raises(FileNotFoundError, match="There is no folder"):
                pull_model(path)
        with pytest.raises(ValueError, match="no model was saved there"):
            pull_model(tmp_path)
        (tmp_path / "file").touch()
        with pytest.raises(ValueError, match="is a file"):
            pull_model(tmp_path / "file")
        assert hub.requests == []
        assert local_model_folder("lab/tiny") is None

    def test_no_name(self, hub) -> None:
        with pytest.raises(HubError, match="'a/b/c' is no repository name"):
            pull_model("a/b/c")

    def test_a_branch_and_a_commit(self, hub, cache: Path) -> None:
        first = hub.add_repo("lab/tiny", {"config.json": CONFIG})
        repo = hub.store.find("models", "lab/tiny")
        hub.store.add_commit(repo, "dev/x", "more", {"config.json": hub.store.keep(b"{}")})
        assert (pull_model("lab/tiny", revision="dev/x", cache_dir=cache) / "config.json").read_bytes() == b"{}"
        assert (pull_model("lab/tiny", revision=first.sha, cache_dir=cache) / "config.json").read_bytes() == CONFIG
        with pytest.raises(HubError, match="it has no such revision"):
            pull_model("lab/tiny", revision="absent", cache_dir=cache)


class TestAccess:
    def test_a_private_model(self, hub, cache: Path, monkeypatch) -> None:
        hub.add_repo("lab/secret", {"config.json": CONFIG}, private=True)
        assert (pull_model("lab/secret", cache_dir=cache) / "config.json").is_file()
        for token in (hub.stranger_token, None):
            monkeypatch.delenv("HF_TOKEN", raising=False)
            with pytest.raises(HubError, match="no such repository, or it is private"):
                pull_model("lab/secret", token=token, cache_dir=cache / "other")

    def test_a_gated_model(self, hub, cache: Path) -> None:
        hub.add_repo("else/gated", {"config.json": CONFIG}, gated=True)
        with pytest.raises(HubError, match=f"the repository is gated. Ask for access at {hub.endpoint}/else/gated"):
            pull_model("else/gated", cache_dir=cache)

    def test_a_wrong_token(self, hub, cache: Path) -> None:
        hub.add_repo("lab/tiny", {"config.json": CONFIG})
        with pytest.raises(HubError, match=r"the token was refused \(401"):
            pull_model("lab/tiny", token="hf_wrong", cache_dir=cache)

    def test_a_missing_model(self, hub, cache: Path) -> None:
        with pytest.raises(HubError, match="Pulling 'lab/absent' failed: no such repository"):
            pull_model("lab/absent", cache_dir=cache)


class TestPickles:
    WEIGHTS = {"config.json": CONFIG, "pytorch_model.bin": b"pickle"}

    def test_pickled_weights_are_refused_before_they_are_pulled(self, hub, cache: Path) -> None:
        hub.add_repo("lab/old", self.WEIGHTS)
        with pytest.raises(HubError, match="only has pickled weights"):
            pull_model("lab/old", cache_dir=cache)
        assert downloads(hub, "pytorch_model.bin") == []
        assert (pull_model("lab/old", cache_dir=cache, allow_pickle=True) / "pytorch_model.bin").is_file()

    def test_copies_of_the_weights_are_left_there(self, hub, tiny_model: Path, cache: Path) -> None:
        safe = (tiny_model / "model.safetensors").read_bytes()
        hub.add_repo(
            "lab/both", {**self.WEIGHTS, "model.safetensors": safe, "tf_model.h5": b"h5", "onnx/m.onnx": b"onnx"}
        )
        assert set(contents(pull_model("lab/both", cache_dir=cache))) == {
            ".gitattributes",
            "config.json",
            "model.safetensors",
        }


class TestDamage:
    def test_a_flipped_byte_is_found_and_pulled_again(self, hub, large_model: Path, cache: Path, caplog) -> None:
        hub.add_folder("lab/large", large_model)
        hub.fail("flip", path="model.safetensors", method="GET", after=20_000_000)
        folder = pull_model("lab/large", cache_dir=cache)
        assert (folder / "model.safetensors").read_bytes() == (large_model / "model.safetensors").read_bytes()
        assert len(downloads(hub, "model.safetensors")) == 2
        assert "model.safetensors of lab/large came damaged" in caplog.text

    @pytest.mark.parametrize("name", ["config.json", "model.safetensors"])
    def test_damage_that_stays_is_an_error_and_leaves_no_damaged_file(self, hub, tiny_model, cache, name: str) -> None:
        hub.add_folder("lab/tiny", tiny_model)
        hub.fail("flip", path=name, method="GET", after=10, times=2)
        with pytest.raises(HubError, match=f"{name} came twice with another checksum"):
            pull_model("lab/tiny", cache_dir=cache)
        assert not list(cache.glob(f"models--lab--tiny/snapshots/*/{name}"))
        folder = pull_model("lab/tiny", cache_dir=cache)
        assert (folder / name).read_bytes() == (tiny_model / name).read_bytes()

    def test_damage_on_the_disk_is_found_at_the_next_pull(self, hub, tiny_model: Path, cache: Path) -> None:
        hub.add_folder("lab/tiny", tiny_model)
        weights = pull_model("lab/tiny", cache_dir=cache) / "model.safetensors"
        damaged = bytearray(weights.read_bytes())
        damaged[-1] ^= 1
        weights.resolve().write_bytes(damaged)
        assert pull_model("lab/tiny", cache_dir=cache) == weights.parent
        assert weights.read_bytes() == (tiny_model / "model.safetensors").read_bytes()

    def test_a_hang_up_is_resumed_where_it_stopped(self, hub, large_model: Path, cache: Path) -> None:
        hub.add_folder("lab/large", large_model)
        hub.fail("hang-up", path="model.safetensors", method="GET", after=25_000_000)
        folder = pull_model("lab/large", cache_dir=cache)
        assert (folder / "model.safetensors").read_bytes() == (large_model / "model.safetensors").read_bytes()
        # The client keeps what came in whole steps of 10 MiB.
        asked = [(request["status"], request["range"]) for request in downloads(hub, "model.safetensors")]
        assert asked == [(200, None), (206, f"bytes={2 * 10 * 2**20}-")]

    def test_a_slow_hub_is_waited_for(self, hub, cache: Path) -> None:
        hub.add_repo("lab/tiny", {"config.json": CONFIG})
        hub.fail("slow", path="config.json", seconds=0.3)
        assert (pull_model("lab/tiny", cache_dir=cache) / "config.json").read_bytes() == CONFIG

    def test_a_busy_hub_is_waited_for(self, hub, cache: Path, monkeypatch) -> None:
        waits = []
        monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waits.append)
        hub.add_repo("lab/tiny", {"config.json": CONFIG})
        hub.fail(503, path="/tree/")
        hub.fail(429, path="config.json", method="GET", retry_after=2)
        assert (pull_model("lab/tiny", cache_dir=cache) / "config.json").read_bytes() == CONFIG
        assert sorted(waits) == [1, 3], "one second after the 503; the named two seconds and one more after the 429"


class TestWithoutHub:
    @pytest.fixture
    def pulled(self, hub, tiny_model: Path, cache: Path) -> Path:
        hub.add_folder("lab/tiny", tiny_model)
        return pull_model("lab/tiny", cache_dir=cache)

    def test_offline_the_cache_answers(self, hub, pulled: Path, cache: Path, monkeypatch) -> None:
        hub.requests.clear()
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        assert pull_model("lab/tiny", cache_dir=cache) == pulled
        with pytest.raises(HubError, match="Pulling 'lab/other' failed: it is not in the cache"):
            pull_model("lab/other", cache_dir=cache)
        assert hub.requests == []

    def test_while_the_hub_is_in_trouble_the_cache_answers(self, hub, pulled: Path, cache: Path, caplog) -> None:
        hub.fail(503, path="/api/models/lab/tiny", times=4)
        assert pull_model("lab/tiny", cache_dir=cache) == pulled
        assert "the Hub is in trouble (503" in caplog.text

    def test_a_refusal_is_not_hidden_by_the_cache(self, hub, pulled: Path, cache: Path) -> None:
        hub.fail(404, path="/api/models/lab/tiny", code="RepoNotFound")
        with pytest.raises(HubError, match="no such repository"):
            pull_model("lab/tiny", cache_dir=cache)

    def test_a_hub_in_trouble_and_nothing_in_the_cache(self, hub, cache: Path) -> None:
        hub.fail(503, times=99)
        with pytest.raises(HubError, match="it is not in the cache"):
            pull_model("lab/tiny", cache_dir=cache)

    def test_pickles_in_the_cache_are_still_refused(self, hub, cache: Path, monkeypatch) -> None:
        hub.add_repo("lab/old", TestPickles.WEIGHTS)
        pull_model("lab/old", cache_dir=cache, allow_pickle=True)
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
        with pytest.raises(HubError, match="only has pickled weights"):
            pull_model("lab/old", cache_dir=cache)
        assert pull_model("lab/old", cache_dir=cache, allow_pickle=True).is_dir()


def test_an_unknown_keyword_is_refused() -> None:
    with pytest.raises(TypeError, match="force"):
        pull_model("lab/tiny", force=True)
    assert pull.NOT_PULLED
