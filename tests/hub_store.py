"""What the test Hub keeps: accounts, repositories, commits and blobs. Blobs are files, the rest is plain objects."""

import hashlib
import json
import re
import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import yaml

LFS_SUFFIXES = (".safetensors", ".bin", ".pt", ".png")
REGULAR_LIMIT = 1_000_000  # bytes; what is larger goes through LFS whatever its name
DTYPE_BITS = {"F64": 64, "F32": 32, "F16": 16, "BF16": 16, "I64": 64, "I32": 32, "I8": 8, "U8": 8, "BOOL": 8}


class Refusal(Exception):
    """An answer that is an error, raised anywhere below a route."""

    def __init__(self, status: int, code: str, message: str, headers: Mapping[str, str] | None = None, **extra: Any):
        super().__init__(message)
        self.status, self.code, self.headers, self.extra = status, code, dict(headers or {}), extra


@dataclass(frozen=True)
class Account:
    """Who a token belongs to and what it may do."""

    name: str
    orgs: tuple[str, ...] = ()
    role: str = "write"  # or "read"

    def may_write(self, namespace: str) -> bool:
        return self.role == "write" and namespace in (self.name, *self.orgs)


@dataclass(frozen=True)
class Blob:
    """The content of one version of one file."""

    sha256: str
    size: int
    is_lfs: bool
    git_sha1: str  # of the content, or of the pointer file if it is kept by LFS
    pointer_size: int = 0

    @property
    def etag(self) -> str:
        return self.sha256 if self.is_lfs else self.git_sha1


@dataclass(frozen=True)
class Commit:
    sha: str
    title: str
    date: str
    files: Mapping[str, Blob]
    parent: "Commit | None" = None


@dataclass
class Repo:
    id: str
    kind: str = "models"
    private: bool = False
    gated: bool = False
    downloads: int = 0
    likes: int = 0
    pipeline_tag: str | None = None
    tags: tuple[str, ...] = ()
    branches: dict[str, Commit] = field(default_factory=dict)

    @property
    def namespace(self) -> str:
        return self.id.split("/")[0]

    def commit(self, revision: str) -> Commit | None:
        """A branch, or a commit by its hash."""
        if revision in self.branches:
            return self.branches[revision]
        for commit in self.branches.values():
            while commit is not None:
                if commit.sha == revision:
                    return commit
                commit = commit.parent
        return None


class HubStore:
    """Repositories over a folder of blobs."""

    def __init__(self, root: Path) -> None:
        self.blobs = root / "blobs"
        self.blobs.mkdir(parents=True)
        self.repos: dict[tuple[str, str], Repo] = {}
        self.aliases: dict[str, str] = {}  # bare name -> full name
        self.accounts: dict[str, Account] = {}  # by token
        self._clock = 0

    def find(self, kind: str, repo_id: str) -> Repo | None:
        return self.repos.get((kind, self.aliases.get(repo_id, repo_id)))

    def create(self, repo_id: str, kind: str = "models", **facts: Any) -> Repo:
        repo = Repo(repo_id, kind, **facts)
        self.repos[kind, repo_id] = repo
        attributes = "".join(f"*{suffix} filter=lfs diff=lfs merge=lfs -text\n" for suffix in LFS_SUFFIXES)
        self.add_commit(repo, "main", "initial commit", {".gitattributes": self.keep(attributes.encode())})
        return repo

    def add_commit(self, repo: Repo, branch: str, title: str, files: Mapping[str, Blob]) -> Commit:
        """Make `files` the whole content of the branch."""
        parent = repo.branches.get(branch)
        self._clock += 1
        date = datetime.fromtimestamp(1_767_225_600 + self._clock, UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
        # with what is in it: a commit of another test, which the cache knows by this name, may have other files
        held = sorted((path, blob.sha256) for path, blob in files.items())
        text = f"{repo.kind}/{repo.id}@{branch}:{self._clock}:{parent and parent.sha}:{title}:{held}"
        commit = Commit(hashlib.sha1(text.encode()).hexdigest(), title, date, dict(sorted(files.items())), parent)
        repo.branches[branch] = commit
        return commit

    def keep(self, content: bytes, is_lfs: bool = False) -> Blob:
        sha256 = hashlib.sha256(content).hexdigest()
        (self.blobs / sha256).write_bytes(content)
        return self.lfs_blob(sha256) if is_lfs else Blob(sha256, len(content), False, git_sha1(content))

    def lfs_blob(self, sha256: str) -> Blob | None:
        """The blob of an uploaded LFS object, None if it was never uploaded."""
        path = self.blobs / sha256
        if not path.is_file():
            return None
        size = path.stat().st_size
        pointer = f"version https://git-lfs.github.com/spec/v1\noid sha256:{sha256}\nsize {size}\n".encode()
        return Blob(sha256, size, True, git_sha1(pointer), len(pointer))

    def path(self, blob: Blob) -> Path:
        return self.blobs / blob.sha256

    def content(self, commit: Commit, path: str) -> bytes:
        return self.path(commit.files[path]).read_bytes() if path in commit.files else b""


def git_sha1(content: bytes) -> str:
    return hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest()


def goes_to_lfs(path: str, size: int) -> bool:
    return size > 0 and (path.endswith(LFS_SUFFIXES) or size > REGULAR_LIMIT)


def card_metadata(card: str) -> dict:
    """The YAML block at the top of a card.

    Raises:
        yaml.YAMLError: it is no YAML.
    """
    block = re.match(r"\s*---\s*\n(.*?)\n---\s*(\n|$)", card, re.DOTALL)
    return (yaml.safe_load(block[1]) if block else None) or {}


def describe(store: HubStore, repo: Repo, commit: Commit) -> dict[str, Any]:
    """Everything the API says about a repository at a commit."""
    card = card_metadata(store.content(commit, "README.md").decode())
    config = json.loads(store.content(commit, "config.json") or b"{}")
    config = {key: config[key] for key in ("model_type", "architectures") if key in config}
    library = card.get("library_name", "transformers" if config else None)
    tags = dict.fromkeys([*repo.tags, *card.get("tags", []), *filter(None, [library, config.get("model_type")])])
    return {
        "_id": repo.id,
        "id": repo.id,
        "modelId": repo.id,
        "sha": commit.sha,
        "author": repo.namespace,
        "createdAt": _first(commit).date,
        "lastModified": commit.date,
        "private": repo.private,
        "gated": "manual" if repo.gated else False,
        "disabled": False,
        "downloads": repo.downloads,
        "likes": repo.likes,
        "tags": list(tags),
        "pipeline_tag": card.get("pipeline_tag", repo.pipeline_tag),
        "library_name": library,
        "cardData": card,
        "config": config,
        "safetensors": count_parameters(store, commit),
        "siblings": [sibling(path, blob) for path, blob in commit.files.items()],
    }


def sibling(path: str, blob: Blob) -> dict[str, Any]:
    row = {"rfilename": path, "size": blob.size, "blobId": blob.git_sha1}
    if blob.is_lfs:
        row["lfs"] = {"sha256": blob.sha256, "size": blob.size, "pointerSize": blob.pointer_size}
    return row


def count_parameters(store: HubStore, commit: Commit) -> dict[str, Any] | None:
    """Parameters by dtype, read from the header of the safetensors files."""
    counts: dict[str, int] = {}
    for path, blob in commit.files.items():
        if not path.endswith(".safetensors"):
            continue
        with store.path(blob).open("rb") as file:
            (length,) = struct.unpack("<Q", file.read(8))
            header = json.loads(file.read(length))
        for name, tensor in header.items():
            if name != "__metadata__":
                begin, end = tensor["data_offsets"]
                counts[tensor["dtype"]] = (
                    counts.get(tensor["dtype"], 0) + (end - begin) * 8 // DTYPE_BITS[tensor["dtype"]]
                )
    return {"parameters": counts, "total": sum(counts.values())} if counts else None


def _first(commit: Commit) -> Commit:
    while commit.parent is not None:
        commit = commit.parent
    return commit
